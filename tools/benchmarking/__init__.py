"""The parts of tools/benchmark.py: the operation, its growth, whole models."""
