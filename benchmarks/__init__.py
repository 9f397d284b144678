"""Measurements, each beside a baseline in the same run.

`personsearch benchmark NAME` runs those of `commands.py`; `python -m benchmarks.NAME` the others.
"""
