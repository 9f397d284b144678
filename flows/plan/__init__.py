"""What is to be built, and why: views, states of stages, checks before anything starts."""
