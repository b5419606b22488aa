"""The trained segmenter in ONNX: `graph` writes it (torch), `predictor` asks it (no torch)."""
