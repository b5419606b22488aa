"""What an export says of itself: how many masks it holds, which it does not, and what was lost."""

import heapq
from dataclasses import dataclass, field
from typing import Any

WORST = 20
MAX_LISTED = 1_000
_STORED = "Coordinates are in pixels as the files of the images store them"
STORED_WITH_IMAGES = (
    f"{_STORED}. The copies of the images here have no EXIF orientation, so that every program "
    "shows them so."
)
STORED_WITHOUT_IMAGES = (
    f"{_STORED}. A program that turns an image by its EXIF orientation shows its masks elsewhere: "
    "give it the images of an export with images."
)


@dataclass
class ExportReport:
    """Collects what happens, gives the document.

    Attributes:
        notes: what the format cannot hold, in words.
    """

    notes: tuple[str, ...]
    masks: int = 0
    rejected: int = 0
    left_out: int = 0
    _listed: list[dict[str, Any]] = field(default_factory=list)
    _sum: float = 0.0
    _worst: list[tuple[float, int, int]] = field(default_factory=list)

    def skip(self, id: int | None, image_id: int, why: str) -> None:
        """A mask; an image's file, where there is no id."""
        self.left_out += 1
        if len(self._listed) < MAX_LISTED:
            self._listed.append({"id": id, "image_id": image_id, "why": why})

    def add(self, id: int, image_id: int, iou: float) -> None:
        """A mask that was written; what was written agrees with it so far."""
        self.masks += 1
        self._sum += iou
        if iou < 1:
            entry = (-iou, id, image_id)
            (heapq.heappush if len(self._worst) < WORST else heapq.heappushpop)(self._worst, entry)

    def document(self) -> dict[str, Any]:
        """As JSON has it.

        `mean_iou` is over all masks that were written, None without any; `worst` are those that
        agree least, the worst first, none that agree wholly.
        """
        worst = sorted(self._worst, reverse=True)
        return {
            "masks": self.masks,
            "rejected": self.rejected,
            "left_out": self._listed,
            "left_out_count": self.left_out,
            "round_trip": {
                "mean_iou": self._sum / self.masks if self.masks else None,
                "worst": [
                    {"id": id, "image_id": image_id, "iou": round(-iou, 6)}
                    for iou, id, image_id in worst
                ],
            },
            "notes": list(self.notes),
        }
