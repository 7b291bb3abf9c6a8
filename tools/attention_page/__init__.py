"""The page of `visualize_attention.py`, in which a person points at a position."""
