"""What tools/benchmark.py measures: the operation, its growth, whole models."""
