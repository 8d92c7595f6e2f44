"""Look after shard sets: check, look into, count, and make new sets of old ones."""
