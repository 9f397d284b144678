"""Search over arrays: the rows of an index that are most similar to a query, and people found in a picture."""
