"""Annotation documents in COCO form: read as a stream, every issue listed. Imports no torch."""
