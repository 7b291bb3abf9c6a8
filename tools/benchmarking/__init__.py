"""What tools/benchmark.py measures: the operation, its growth with N, and whole models."""
