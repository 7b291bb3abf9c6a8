"""What tools/benchmark.py and tools/gpu.py measure."""
