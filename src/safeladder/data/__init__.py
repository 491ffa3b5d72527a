"""Data: prompts from files, generators and data sets."""
