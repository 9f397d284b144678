"""One file a stage: its inputs, its recipe, and how it is made."""
