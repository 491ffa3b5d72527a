"""Evaluation: trajectories to figures with intervals."""
