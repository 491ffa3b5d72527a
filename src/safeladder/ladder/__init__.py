"""The ladder: recipes, rungs, run directories, reports."""
