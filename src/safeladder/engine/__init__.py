"""Engines: the machines that hold the weights, behind the protocols of `engine.base`."""
