"""Predictions of trained models: requests, results, and the jobs that make many of them."""
