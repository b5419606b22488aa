"""Webhooks: where a job's events are posted, and what is still to be delivered."""
