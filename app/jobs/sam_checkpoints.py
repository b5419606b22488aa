"""SAM's checkpoints as the settings name them, and whether a request can have the one it asks for.

Reads shapes, never weights, and no torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.errors import ValidationIssue
from app.settings import Settings
from sapnet.errors import WeightsUnavailable
from sapnet.proposals.sam.checkpoints import check_type, choose, named_checkpoints


def configured(settings: Settings) -> dict[str, Path]:
    """Paths by name, the default's first."""
    return named_checkpoints(settings.sam_checkpoint, settings.sam_checkpoints)


def issues(settings: Settings, proposals: Mapping[str, Any]) -> list[ValidationIssue]:
    """The issues of a request's proposals by SAM.

    A file that is not on this machine is the job's to find: workers may be elsewhere.
    """
    family = proposals.get("kind")
    if family not in ("sam", "sam2"):
        return []
    checkpoints, model_type = configured(settings), proposals.get("model_type")
    try:
        name = choose(checkpoints, proposals.get("checkpoint"), model_type, family)
    except ValueError as error:
        return [ValidationIssue("body", "/proposals/checkpoint", str(error))]
    if name is None or not checkpoints[name].exists():
        return []
    try:
        check_type(checkpoints[name], f"the checkpoint {name!r}", model_type, family)
    except WeightsUnavailable as error:
        return [ValidationIssue("body", "/proposals/checkpoint", str(error))]
    except ValueError as error:
        field = "model_type" if model_type is not None else "kind"
        return [ValidationIssue("body", f"/proposals/{field}", str(error))]
    return []
