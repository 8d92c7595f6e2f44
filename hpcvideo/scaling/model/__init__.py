"""The cost model: what a training step, a run and its start cost on a system; pure functions of a config's counts and a system's values."""
