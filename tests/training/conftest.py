"""The tiny runs of the pipeline's tests, for what is trained in other ways."""

from ..pipeline.conftest import given, make_spec, scenes

__all__ = ["given", "make_spec", "scenes"]
