"""Is every node of a job fit for it? Asked just before training, so that a bad node is left out and not waited for."""
