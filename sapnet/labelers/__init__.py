"""Labelers: from points and proposals to what the segmenter learns, and to delivered masks."""
