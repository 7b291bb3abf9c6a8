"""The parts of tools/results.py: pairs of trainings, tables, Markdown files and curves."""
