"""A machine learning backend of Label Studio: masks from clicks, predictions, training."""
