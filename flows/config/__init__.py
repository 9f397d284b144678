"""The config: YAML text, its models and fields, and what a run is asked for."""
