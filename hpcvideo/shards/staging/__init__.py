"""Node-local copies of shards: planned (plan), kept (local_folder), moved (leaders, ring, own_shards), all told (stage)."""
