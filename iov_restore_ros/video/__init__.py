"""What one frame of a camera knows of the one before, and how it is found; without a network."""
