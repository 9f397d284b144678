"""Sweeps: a grid of settings over one store, its tables, and presets of re-ID objectives."""
