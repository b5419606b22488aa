"""Proposals without weights: superpixels, merge trees, colour models and flood fills."""
