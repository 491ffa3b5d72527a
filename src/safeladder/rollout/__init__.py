"""Rollout: prompts to trajectories."""
