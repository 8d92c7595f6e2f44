"""A network cut into stages, each on ranks of its own, on DeepSpeed's pipeline engine."""
