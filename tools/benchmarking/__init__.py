"""What tools/benchmark.py measures: the operation and models."""
