"""The training loop, its steps and checkpoints; it knows neither labeler nor segmenter."""
