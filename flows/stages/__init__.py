"""One file per stage: its recipe, its inputs, and how it is built."""
