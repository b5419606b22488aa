"""What every view stands on: RLE as pycocotools has it, the page's headers, keys, themes."""

import json
import random
import urllib.request

import numpy as np
import pytest
from pycocotools import mask as coco_mask

MASKS_JS = """async (cases) => {
  const rle = await import('/web/viewer/rle.js');
  return cases.map(({size, counts}) => {
    const mask = rle.decode({size, counts});
    return {ones: Array.from(mask), again: rle.encode(mask, size[0], size[1]),
            held: size[0] * size[1] > 2000 ? [] : Array.from(mask, (_, i) => Number(
              rle.holds({size, counts}, Math.floor(i / size[0]) + .5, i % size[0] + .5))),
            area: rle.area({size, counts}), bounds: rle.bounds({size, counts})};
  });
}"""


def _masks() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    masks = [np.zeros((5, 7)), np.ones((5, 7)), np.zeros((1, 1)), np.ones((1, 1))]
    corners = np.zeros((9, 4))
    corners[[0, 0, -1, -1], [0, -1, 0, -1]] = 1
    masks += [corners, *(generator.random((h, w)) < p for h, w, p in [(6, 5, 0.5), (40, 31, 0.1)])]
    y, x = np.mgrid[:300, :400]
    masks.append((x - 200) ** 2 + (y - 100) ** 2 < 90**2)  # runs and differences of many digits
    masks.append((x + y) % 50 < 3)
    return [np.asfortranarray(m, dtype=np.uint8) for m in masks]


def test_rle_is_that_of_pycocotools(ui) -> None:
    masks = _masks()
    rles = [coco_mask.encode(m) for m in masks]
    sent = [{"size": list(r["size"]), "counts": r["counts"].decode()} for r in rles]
    ui.open()
    for mask, rle, told in zip(masks, sent, ui.page.evaluate(MASKS_JS, sent), strict=True):
        assert told["again"] == rle
        assert told["ones"] == mask.flatten(order="F").tolist()
        assert told["held"] in ([], told["ones"])
        assert told["area"] == int(mask.sum())
        assert told["bounds"] == coco_mask.toBbox(rle | {"counts": rle["counts"].encode()}).tolist()


def test_a_mask_is_painted_where_it_is(ui) -> None:
    mask = np.zeros((6, 9), np.uint8, order="F")
    mask[2:5, 3:8] = 1
    rle = coco_mask.encode(mask)
    painted = """async ([rle, what]) => {
      const canvas = (await import('/web/viewer/rle.js'))[what](rle, [10, 200, 30], 255);
      const pixels = canvas.getContext('2d').getImageData(0, 0, 9, 6).data;
      return Array.from(pixels);
    }"""
    sent = {"size": [6, 9], "counts": rle["counts"].decode()}
    ui.open()
    whole = np.array(ui.page.evaluate(painted, [sent, "paint"])).reshape(6, 9, 4)
    assert (whole[mask == 1] == [10, 200, 30, 255]).all()
    assert (whole[mask == 0] == 0).all()
    inner = mask.copy()
    inner[3, 4:7] = 0
    border = np.array(ui.page.evaluate(painted, [sent, "outline"])).reshape(6, 9, 4)
    assert ((border[..., 3] > 0) == (inner == 1)).all()


def test_a_large_mask_takes_no_time(ui) -> None:
    """4,000 x 3,000 pixels: what a brush does at each stroke's end."""
    timed = """async () => {
      const rle = await import('/web/viewer/rle.js');
      const inside = (_, i) => (i % 3000 > 700 && i % 3000 < 2000) ? 1 : 0;
      const mask = new Uint8Array(12_000_000).map(inside);
      let again, took = Infinity;
      for (let turn = 0; turn < 3; turn++) {
        const start = performance.now();
        again = rle.decode(rle.encode(mask, 3000, 4000));
        took = Math.min(took, performance.now() - start);
      }
      return [took, again.every((v, i) => v === mask[i])];
    }"""
    ui.open()
    took, same = ui.page.evaluate(timed)
    assert same
    assert took < 1000


@pytest.mark.parametrize("accept", ["*/*", "application/json"])
def test_programs_get_the_index(service, accept: str) -> None:
    request = urllib.request.Request(service.url, headers={"Accept": accept})
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["datasets"] == "/datasets"
        assert answer.headers["Vary"] == "Accept"


def test_the_page_may_load_only_its_own(ui) -> None:
    """Its policy forbids what is written in place, and what comes from elsewhere."""
    ui.open()
    ui.expected += ["Content Security Policy", "violates"]
    ran = ui.page.evaluate(
        """() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';
           document.body.append(s); return window.ran === 1; }"""
    )
    assert not ran
    loaded = ui.page.evaluate(
        """() => performance.getEntriesByType('resource').map((e) => new URL(e.name).origin)"""
    )
    assert set(loaded) <= {ui.service.url, "null"}


def test_the_theme_is_chosen_and_kept(ui) -> None:
    page = ui.open()
    button = page.locator("#theme")
    for expected in ("light", "dark"):
        button.click()
        assert page.evaluate("document.documentElement.dataset.theme") == expected
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    button.click()
    page.emulate_media(color_scheme="light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_what_is_not_there_is_said(ui) -> None:
    ui.expected += ["404", "ApiError", "There is no"]
    page = ui.open("/datasets/none")
    assert "There is no data set" in page.locator(".problem").inner_text()
    page = ui.open("/nowhere")
    assert "There is no page /nowhere" in page.locator(".problem").inner_text()


def test_colours_of_many_classes_differ(ui) -> None:
    told = """async () => {
      const { colour } = await import('/web/viewer/colours.js');
      return Array.from({length: 40}, (_, i) => colour(i));
    }"""
    ui.open()
    colours = ui.page.evaluate(told)
    assert len({tuple(c) for c in colours}) == 40
    assert all(0 <= v <= 255 for c in colours for v in c)
    first, second = random.Random(0).sample(colours[:10], 2)
    assert sum(abs(a - b) for a, b in zip(first, second, strict=True)) > 60
