"""Export of a segmenter to ONNX, and prediction without torch."""
