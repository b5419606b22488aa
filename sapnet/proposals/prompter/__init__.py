"""A learned prompter: a small network that turns clicks into masks and estimates their IoU."""
