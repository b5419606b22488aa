"""How an image failed, and what is not an image's fault. Imports no torch."""

from dataclasses import dataclass

from sapnet.data.images import ImageProblem
from sapnet.errors import SapnetError, is_disk_full, is_out_of_memory
from sapnet.pipeline.contract import Stage
from sapnet.types import ImageInfo

FROM_TRAINING_ON = (Stage.TRAIN, Stage.PSEUDO_MASKS)


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image that a run does without: in which stage it failed, and how."""

    image_id: int
    file_name: str
    stage: str
    error: str

    @classmethod
    def of(cls, info: ImageInfo, stage: str, error: Exception) -> "FailedImage":
        """Describe how an image failed."""
        plain = isinstance(error, ImageProblem)
        words = f"{error}" if plain else f"{type(error).__name__}: {error}"
        return cls(info.id, info.file_name, stage, words)

    @property
    def is_early(self) -> bool:
        """Whether it failed before the training began."""
        return self.stage not in FROM_TRAINING_ON

    def __str__(self) -> str:
        return f"image {self.image_id} ({self.file_name}) in {self.stage}: {self.error}"


def blames_image(error: Exception) -> bool:
    """Whether an error is the image's fault.

    It is not when the run was stopped, its settings do not fit, the disk is full, or memory is
    refused: another process may hold it.
    """
    of_run = isinstance(error, SapnetError) and not isinstance(error, ImageProblem)
    return not (of_run or is_disk_full(error) or is_out_of_memory(error))
