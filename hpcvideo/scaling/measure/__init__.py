"""What event logs say: throughput, efficiency, where the time goes, goodput, cost, and what changed between runs."""
