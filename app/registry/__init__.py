"""Trained models: their files, their metrics, and the aliases they are called by."""
