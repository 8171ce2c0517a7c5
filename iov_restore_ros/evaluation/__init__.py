"""How restored pictures are measured; knows nothing of training."""
