"""The points of a data set as a document, for the processes that read it."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.rows import bbox_of
from app.db.models import Annotation, Category, Image


def points_document(
    session: Session, dataset_id: str, ids: tuple[int, int] | None = None
) -> dict[str, Any]:
    """The data set as COCO-style points, with sizes as the files themselves have them.

    Args:
        ids: the least and the greatest of the images that are wanted; None for all.
    """
    images = select(
        Image.image_id,
        Image.file_name,
        Image.width,
        Image.height,
        Image.subset,
        Image.split_group,
    )
    categories = select(Category.category_id, Category.name)
    objects = select(
        Annotation.annotation_id,
        Annotation.image_id,
        Annotation.category_id,
        Annotation.x,
        Annotation.y,
        Annotation.segmentation,
        Annotation.box,
        Annotation.pointed,
    )
    if ids is not None:
        images = images.where(Image.image_id.between(*ids))
        objects = objects.where(Annotation.image_id.between(*ids))
    return {
        # a part may have no annotation at all
        **({"info": {"unannotated": True}} if ids is not None else {}),
        "images": [
            {
                "id": id,
                "file_name": file_name,
                "width": width,
                "height": height,
                **({"subset": subset} if subset else {}),
                **({"group": group} if group else {}),
            }
            for id, file_name, width, height, subset, group in session.execute(
                images.where(Image.dataset_id == dataset_id).order_by(Image.pk)
            )
        ],
        "annotations": [
            {
                "id": id,
                "image_id": image_id,
                "category_id": category_id,
                **({"point": [x, y]} if pointed else {}),
                **({"mask": mask} if mask is not None else {}),
                **({"bbox": bbox_of(box)} if box is not None else {}),
            }
            for id, image_id, category_id, x, y, mask, box, pointed in session.execute(
                objects.where(Annotation.dataset_id == dataset_id).order_by(Annotation.pk)
            )
        ],
        "categories": [
            {"id": id, "name": name}
            for id, name in session.execute(
                categories.where(Category.dataset_id == dataset_id).order_by(Category.category_id)
            )
        ],
    }
