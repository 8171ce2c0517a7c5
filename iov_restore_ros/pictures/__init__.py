"""Pictures and videos: reading, writing, data sets and degradations; it imports no model."""
