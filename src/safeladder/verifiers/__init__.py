"""Verifiers: what judges a trajectory. No tensor is known here."""
