"""A run at work: processes of stages, their records and progress, and the Prefect API that watches them."""
