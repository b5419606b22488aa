"""How good are the bags of true boxes? Run: python benchmarks/boxes.py --data DIR [--limit N]

DIR holds images/ and instances.json (COCO), whose boxes are the annotations. Prints the mean mask
IoU, in per cent, of the filled box, the ellipse in it, GrabCut in it (OpenCV, five rounds, from the
box alone), the method box-rule, and the best proposal of each bag; masks are cut to the box, as
they are delivered.
"""

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from pycocotools import mask as coco_mask

from sapnet.config.methods import METHODS
from sapnet.config.schema import Config
from sapnet.data.annotations.coco import read_points
from sapnet.data.annotations.ground_truth import as_rle, read_truth
from sapnet.data.box_masks import box_mask, cut_to, ellipse_mask, pixels_of
from sapnet.data.images import read_rgb
from sapnet.data.masks import encode
from sapnet.labelers.rules import BOX_RULE_MEDOID
from sapnet.labelers.sapnet.bag_features import box_fit
from sapnet.proposals import build_generator
from sapnet.proposals.bags import make_bags
from sapnet.types import Bag, Box, ByteArray, Rle

ROWS = ("filled box", "ellipse", "GrabCut", "box-rule", "best of bag")
_ROUNDS = 5


def main(
    data: Annotated[Path, typer.Option(help="folder with images/ and instances.json")],
    limit: Annotated[int, typer.Option(help="how many images; 0 takes all")] = 0,
    kind: Annotated[str, typer.Option(help="a kind of generator")] = "hierarchy",
) -> None:
    points = read_points(data / "instances.json").points
    truth = {a["id"]: a for a in read_truth(data / "instances.json")["annotations"]}
    scenes = [(info, objects) for info, objects in points if objects]
    scenes = scenes[:: max(1, len(scenes) // limit)][:limit] if limit else scenes
    generator = build_generator({"kind": kind})
    rows: list[list[float]] = []
    for info, objects in scenes:
        image = read_rgb(data / "images" / info.file_name)
        bags = make_bags(generator, image, info, objects)
        for annotation, bag in zip(objects, bags, strict=True):
            box = annotation.box
            if box is None:
                continue
            oval = ellipse_mask(box, info.size)
            masks = [cut_to(mask, box) or oval for mask in bag.masks]
            shown = [box_mask(box, info.size), oval, grab_cut(image, box), *masks]
            true = as_rle(truth[annotation.id]["segmentation"], *info.size)
            iou = np.asarray(coco_mask.iou(shown, [true], [0]))[:, 0]
            rows.append([*iou[:3], iou[3 + rule(bag, box)], iou[3:].max()])
    print(f"{data.name}, {kind}: {len(rows)} boxes of {len(scenes)} images")
    for name, figure in zip(ROWS, np.mean(rows, axis=0), strict=True):
        print(f"{name:12s} {100 * figure:5.1f}")


def rule(bag: Bag, box: Box) -> int:
    """Index of the proposal that the method box-rule picks."""
    overlaps = bag.overlaps.astype(np.float64)
    medoid = (overlaps.sum(axis=1) - np.diag(overlaps)) / max(len(bag) - 1, 1)
    fit = box_fit(bag, box, METHODS["box-rule"](Config()).mil)
    return int((np.exp(fit) * medoid**BOX_RULE_MEDOID).argmax())


def grab_cut(image: ByteArray, box: Box) -> Rle:
    """GrabCut of a box, its ground the box grown by half a side; the filled box where it fails."""
    size = (image.shape[0], image.shape[1])
    across, down = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    wide = (box[0] - across, box[1] - down, box[2] + across, box[3] + down)
    (rows, columns), (own_rows, own_columns) = pixels_of(wide, size), pixels_of(box, size)
    kinds = np.full(size, cv2.GC_BGD, np.uint8)
    kinds[own_rows, own_columns] = cv2.GC_PR_FGD
    part = np.ascontiguousarray(kinds[rows, columns])
    crop = np.ascontiguousarray(image[rows, columns][..., ::-1])
    models = np.zeros((1, 65)), np.zeros((1, 65))
    try:
        cv2.grabCut(crop, part, None, *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # too few pixels of a kind
        return box_mask(box, size)
    mask = np.zeros(size, bool)
    mask[rows, columns] = (part == cv2.GC_FGD) | (part == cv2.GC_PR_FGD)
    return encode(mask) if mask.any() else box_mask(box, size)


if __name__ == "__main__":
    typer.run(main)
