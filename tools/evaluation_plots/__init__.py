"""The parts of tools/plot_evaluation.py: what it counts, and the plots."""
