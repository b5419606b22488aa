"""A run of the pipeline, its stages and files, and offline jobs on trained models."""
