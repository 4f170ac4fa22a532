"""Benchmarks: programs, each with a target of its own in the Makefile. Reports go to build/bench."""
