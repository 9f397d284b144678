"""Forgetting people and images: the list that every ingest honours, and their removal from a store."""
