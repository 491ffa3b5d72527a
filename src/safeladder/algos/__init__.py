"""The maths side: advantage estimators and policy losses, one paper per file.

``PRESETS`` holds the vetted setting of each paper by name; see ``docs/PAPERS.md``.
"""
