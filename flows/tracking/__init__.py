"""Runs in the trackers that a team uses already, beside TensorBoard: `run.trackers`. Off by default."""
