"""Resumable uploads (tus), which data sets are made from."""
