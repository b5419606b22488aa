"""Segmenters: networks that are trained on pseudo-labels, their files and their exports."""
