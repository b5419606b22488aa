"""Masks refined by clicks."""
