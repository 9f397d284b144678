"""The measurements of the benchmark commands."""
