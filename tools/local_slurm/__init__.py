"""Parts of tools/local_cluster.py: its config, its processes and the cluster itself."""
