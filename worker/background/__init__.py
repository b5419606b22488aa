"""What a worker of the queue io does beside its jobs: deliver webhooks, remove what was deleted."""
