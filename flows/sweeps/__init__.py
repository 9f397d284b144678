"""Sweeps: a grid of settings over one store, its table, and the presets of re-ID objectives."""
