"""Who this process is among many (environment), and on what device it computes (device, imports torch)."""
