"""The parts of tools/demo.py: pictures, videos, and predictions as JSON."""
