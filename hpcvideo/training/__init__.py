"""The one trainer: loop, recipe, checkpoint and resume, for every task and method."""
