"""Measuring restored pictures and sequences; it does not import training."""
