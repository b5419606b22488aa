"""Data sets: what is sent, checked, stored and looked up."""
