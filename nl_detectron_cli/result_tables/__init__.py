"""The parts of tools/results.py: pairs of trainings, their names, the paper's figures, tables and curves."""
