"""What a hand does in the review."""

import re
import time
from typing import Any

from playwright.sync_api import Page, expect
from pycocotools import mask as coco_mask

PLACE_JS = """async ([rle, point, at]) => {
  const { shapeOf } = await import('/web/viewer/overlay.js');
  const canvas = document.querySelector('.reviewing .viewer > canvas');
  const r = canvas.getBoundingClientRect();
  const [x, y, w, h] = shapeOf(rle).box;
  const left = Math.min(x, point[0]), top = Math.min(y, point[1]);
  const right = Math.max(x + w, point[0]), bottom = Math.max(y + h, point[1]);
  const air = 0.1 * Math.max(right - left, bottom - top, 16);
  const side = Math.max(right - left + 2 * air, bottom - top + 2 * air, 8) * 1.8;
  const scale = Math.min(64, r.width / side, r.height / side);
  const [height, width] = rle.size;
  const placed = (at, length, room) =>
    length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, at));
  const dx = placed(r.width / 2 - ((left + right) / 2) * scale, width * scale, r.width);
  const dy = placed(r.height / 2 - ((top + bottom) / 2) * scale, height * scale, r.height);
  return [r.left + dx + at[0] * scale, r.top + dy + at[1] * scale];
}"""


def iou(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(coco_mask.iou([one], [other], [0])[0, 0])


def at(page: Page, point: list[float], mask: dict[str, Any]) -> tuple[float, float]:
    """Where this place of the image is on screen, with the object in view."""
    place = page.evaluate(PLACE_JS, [mask["segmentation"], mask["point"], point])
    return place[0], place[1]


def centre(rle: dict[str, Any]) -> list[float]:
    """A pixel in the middle of what is inside."""
    mask = coco_mask.decode(rle)
    columns = mask.any(0).nonzero()[0]
    x = int(columns[len(columns) // 2])
    rows = mask[:, x].nonzero()[0]
    return [x + 0.5, int(rows[len(rows) // 2]) + 0.5]


def other_half(mask: dict[str, Any]) -> list[float]:
    """A place of the object that its mask, half of it, lacks."""
    whole, half = (
        coco_mask.decode(r) for r in (mask["candidates"][0]["segmentation"], mask["segmentation"])
    )
    return centre(coco_mask.encode((whole & (1 - half)).copy(order="F")))


def saved(trained: Any, mask: dict[str, Any], status: str) -> dict[str, Any]:
    """The mask, once the service has it in this status."""
    deadline = time.monotonic() + 15
    while (now := dict(trained.mask(mask["mask_id"])))["status"] != status:
        assert time.monotonic() < deadline, now["status"]
        time.sleep(0.05)
    return now


def counted(page: Page, text: str) -> None:
    expect(page.locator(".counts")).to_contain_text(text)


def shown(page: Page, mask: dict[str, Any]) -> None:
    """Wait until this mask is the one that is shown, on its image."""
    expect(page.locator(".reviewing h2").first).to_have_text(re.compile(rf"\b{mask['id']}$"))
    page.wait_for_selector(f".proposal[data-drawn='{mask['mask_id']}']")
