"""The health of a data set on its page: copies, and points that lead to the editor."""

import json
from typing import Any

import httpx2
from PIL import Image
from playwright.sync_api import expect

from .conftest import make_image


def suspicious(service: Any) -> str:
    """A data set with a point on the border, two near each other, and a copy of an image."""
    places = [(1, 20, 25), (1, 21, 25), (2, 0.5, 25), (3, 50, 25)]
    document = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(1, 4)],
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "dust"}],
        "annotations": [
            {"id": 10 + n, "image_id": i, "category_id": 1 + n % 2, "point": [x, y]}
            for n, (i, x, y) in enumerate(places)
        ],
    }
    files: list[Any] = [("annotations", ("points.json", json.dumps(document)))]
    for i, seed in ((1, 1), (2, 2), (3, 1)):
        path = make_image(service.folder / "health" / f"{i}.png", seed=seed)
        if i == 2:  # unlike the others
            with Image.open(path) as image:
                image.transpose(Image.Transpose.ROTATE_180).save(path)
        files.append(("images", (path.name, path.read_bytes())))
    answer = httpx2.post(f"{service.url}/datasets", data={"name": "odd"}, files=files, timeout=60)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_findings_lead_to_the_editor(ui: Any) -> None:
    page = ui.open(f"/datasets/{suspicious(ui.service)}")
    health = page.get_by_role("region", name="Health")
    expect(health.locator("[data-kind=near_duplicates] a")).to_have_count(2)
    expect(health.locator(".balance li")).to_have_count(2)
    expect(health.get_by_text("1 point is less than 3 pixels from another one")).to_be_visible()
    ui.looks("health", shots=False)
    health.locator("[data-kind=border_points] a").click()
    page.wait_for_url("**/edit?image=2&point=12")
    ui.settled()
    expect(page.locator(".thumb[aria-current]")).to_have_attribute("aria-label", "2.png, 1 point")
    expect(page.locator(".points button[aria-pressed=true]")).to_have_count(1)
