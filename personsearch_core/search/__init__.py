"""Search over arrays: the rows that are most similar to a query, and the people found in a picture."""
