"""What tools/soak.py does: trainings that are killed, one that is watched, and the report."""
