"""Offline commands, and the demo."""
