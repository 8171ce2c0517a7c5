"""The offline commands, and the demo."""
