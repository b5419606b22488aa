"""What a method is: switches of the one pipeline, as settings by dotted name."""

from typing import Any

# For proposals whose confidence is no estimate of IoU and whose masks are not cut along the image's
# own edges: the teacher's contrast tells more than its overlap does, and a mask is refined once,
# where its bag consents, since many are better than refinement could make them.
FOREIGN: dict[str, Any] = {
    "mil.prior_contrast": 5.0,
    "mil.prior_overlap": 0.0,
    "refine.polish": 0,
    "output.consent": True,
}

# What each method switches off or on in the one pipeline (ALGORITHM: "Methods").
METHODS: dict[str, dict[str, Any]] = {
    "sam-top1": {"mil.rule": "confidence", "teacher.enabled": False, "refine.enabled": False},
    "consensus": {"mil.rule": "consensus", "teacher.enabled": False, "refine.enabled": False},
    "mil": {
        "mil.point_distance": False,
        "mil.exclude_foreign_points": False,
        "mil.refinement": False,
        "mil.positives": False,
        "mil.box_mining": False,
        "mil.completeness": False,
        "mil.prior_medoid": 0.0,
        "mil.prior_confidence": 0.0,
        "teacher.enabled": False,
        "refine.enabled": False,
    },
    "sapnet": {"mil.completeness": False, "teacher.enabled": False, "refine.enabled": False},
    "sapnet++": {},
}
