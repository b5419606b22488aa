"""Datasets: annotation files, images, masks, import and export formats, training samples."""
