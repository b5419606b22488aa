"""Metrics, without torch: how good the pseudo-masks are, and how good the segmenter is."""

from sapnet.evaluation.average_precision import average_precision
from sapnet.evaluation.pseudo_masks import pseudo_mask_metrics

__all__ = ["average_precision", "pseudo_mask_metrics"]
