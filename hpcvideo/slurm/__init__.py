"""Slurm: facts of clusters (site), the text of batch scripts (script), handing them in and waiting for them (submit)."""
