"""Simulated devices: the real agent and the real runtime on a simulated board."""
