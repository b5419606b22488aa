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
    _of_image: dict[int, tuple[int, float]] = field(default_factory=dict)
    _worst: list[tuple[float, int, int]] = field(default_factory=list)

    def note_renamed(self, renamed: list[str]) -> None:
        """Say which classes are called otherwise in the file."""
        if renamed:
            more = f" and {len(renamed) - WORST} more" if len(renamed) > WORST else ""
            note = "Classes are called otherwise here, so that no tool takes two for one: "
            self.notes = (*self.notes, f"{note}{', '.join(renamed[:WORST])}{more}.")

    def skip(self, id: int | None, image_id: int, why: str) -> None:
        """A mask; an image's file, where there is no id."""
        self.left_out += 1
        if len(self._listed) < MAX_LISTED:
            self._listed.append({"id": id, "image_id": image_id, "why": why})

    def add(self, id: int, image_id: int, iou: float) -> None:
        """A mask that was written; what was written agrees with it so far."""
        self.masks += 1
        count, total = self._of_image.get(image_id, (0, 0.0))
        self._of_image[image_id] = (count + 1, total + iou)
        if iou < 1:
            entry = (-iou, id, image_id)
            (heapq.heappush if len(self._worst) < WORST else heapq.heappushpop)(self._worst, entry)

    def unread(self, image_id: int, why: str) -> None:
        """Readers do not get the masks of an image: they count as lost."""
        count, _ = self._of_image.get(image_id, (0, 0.0))
        if count:
            self._of_image[image_id] = (count, 0.0)
        self.skip(None, image_id, why)

    def document(self) -> dict[str, Any]:
        """As JSON has it.

        `mean_iou` is over all masks that were written, None without any, and 0 for those that
        readers of the format do not find, or not on their image, or of another class; `worst` are
        those that agree least, the worst first, none that agree wholly.
        """
        worst = sorted(self._worst, reverse=True)
        total = sum(total for _, total in self._of_image.values())
        return {
            "masks": self.masks,
            "rejected": self.rejected,
            "left_out": self._listed,
            "left_out_count": self.left_out,
            "round_trip": {
                "mean_iou": total / self.masks if self.masks else None,
                "worst": [
                    {"id": id, "image_id": image_id, "iou": round(-iou, 6)}
                    for iou, id, image_id in worst
                ],
            },
            "notes": list(self.notes),
        }
