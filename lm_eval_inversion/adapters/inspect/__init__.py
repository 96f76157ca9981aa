"""Inspect as host."""
