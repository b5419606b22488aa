"""Requests that the service makes itself: which addresses it may call, and how it signs."""
