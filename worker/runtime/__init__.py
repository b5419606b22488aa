"""What attempts of every kind share: lease, heartbeat, processes, progress and metrics."""
