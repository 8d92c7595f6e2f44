"""hpcvideo trains video models on Slurm clusters, from one laptop process to thousands of GPUs."""

__version__ = "0.1.0"
