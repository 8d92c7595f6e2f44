"""The cost model: seconds and bytes of a training job on a system, from a config's counts and a system's values."""
