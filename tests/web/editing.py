"""What a hand does in the point editor."""

import base64
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

DROP_JS = """async ([selector, files]) => {
  const carried = new DataTransfer();
  for (const { name, type, data } of files) {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    carried.items.add(new File([bytes], name, { type }));
  }
  for (const kind of ['dragenter', 'dragover', 'drop']) {
    document.querySelector(selector).dispatchEvent(
      new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
  }
}"""


def drop(page: Page, *paths: Path) -> None:
    """Drop files from the desktop."""
    kinds = {".png": "image/png", ".jpg": "image/jpeg", ".json": "application/json"}
    files = [
        {
            "name": path.name,
            "type": kinds.get(path.suffix, ""),
            "data": base64.b64encode(path.read_bytes()).decode(),
        }
        for path in paths
    ]
    page.evaluate(DROP_JS, [".drop", files])


def at(
    page: Page, x: float, y: float, size: tuple[int, int] = (120, 80), within: str = ".editor"
) -> tuple[float, float]:
    """Where on the screen this pixel of an image of this size (w, h) is, the whole of which the
    viewer shows."""
    viewer = page.locator(f"{within} .viewer")
    viewer.evaluate("node => node.scrollIntoView({block: 'center'})")
    canvas = viewer.bounding_box()
    assert canvas
    width, height = size
    pad = min(16, canvas["width"] / 20)
    scale = min((canvas["width"] - 2 * pad) / width, (canvas["height"] - 2 * pad) / height, 8)
    left = canvas["x"] + (canvas["width"] - width * scale) / 2
    top = canvas["y"] + (canvas["height"] - height * scale) / 2
    return left + x * scale, top + y * scale


def click(page: Page, x: float, y: float, size: tuple[int, int] = (120, 80), **how: Any) -> None:
    page.mouse.click(*at(page, x, y, size), **how)


def points(page: Page) -> list[str]:
    """The points of the image that is shown, as the list beside it has them."""
    return page.locator(".points li span:not(.swatch)").all_inner_texts()
