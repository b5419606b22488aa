"""Trackers of experiments: TensorBoard's event files, MLflow, Weights & Biases.

All read the same events, those of a run (`sapnet.pipeline.events`) as the service stores them: a
`Session` gives each event to a tracker, and says how far it came. Nothing here imports torch, and
the trackers' packages are imported by the session alone.
"""
