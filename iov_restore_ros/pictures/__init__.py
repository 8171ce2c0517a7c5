"""Pictures to learn from and to measure on, and how they are degraded; knows no model."""
