"""Temporal action detection: which actions a long video shows, and from when to when."""
