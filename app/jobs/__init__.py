"""Jobs: what kinds there are, their queue, their events, and their results."""
