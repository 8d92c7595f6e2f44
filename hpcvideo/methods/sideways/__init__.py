"""Gradients that flow forward in time: every unit of a network works at every step (Sideways and Skip-Sideways)."""
