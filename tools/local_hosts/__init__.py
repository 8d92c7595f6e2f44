"""Several hosts on one machine: own network interfaces, names, link speed and share of the cores."""
