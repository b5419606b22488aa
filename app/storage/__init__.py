"""Stored files by their content, and what is decoded of them."""
