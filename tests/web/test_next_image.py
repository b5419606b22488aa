"""Which image comes next: in the editor the next without points, in the review image by image."""

import json
import time
from typing import Any

import httpx2
from playwright.sync_api import Page, expect

from .conftest import make_image
from .editing import click


def partly_clicked(service: Any) -> str:
    """Five images, points on the second alone; the fifth looks like no other."""
    document = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(1, 6)],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 2, "category_id": 1, "point": [20, 25]}],
    }
    files: list[Any] = [("annotations", ("points.json", json.dumps(document)))]
    for i in range(1, 6):
        path = make_image(service.folder / "next" / f"{i}.png", seed=i)
        files.append(("images", (path.name, path.read_bytes())))
    answer = httpx2.post(f"{service.url}/datasets", data={"name": "part"}, files=files, timeout=60)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def described(service: Any, dataset: str) -> None:
    """Wait until a worker has described the images: the ranking stays as it is then."""
    deadline = time.monotonic() + 60
    while not service.ask(f"/datasets/{dataset}/next")["complete"]:
        assert time.monotonic() < deadline, "the images are not described"
        time.sleep(0.2)


def shown(page: Page) -> str:
    return page.locator(".thumb[aria-current]").get_attribute("title") or ""


def test_the_next_image_without_points(ui: Any) -> None:
    dataset = partly_clicked(ui.service)
    ranked = [i["file_name"] for i in ui.service.ask(f"/datasets/{dataset}/next")["images"]]
    assert sorted(ranked) == ["1.png", "3.png", "4.png", "5.png"]
    # the order that the editor is given is one that is not the listed one
    wanted = [5, 3, 1, 4]

    def answer(route: Any) -> None:
        told = route.fetch().json()
        told["images"].sort(key=lambda image: wanted.index(image["image_id"]))
        route.fulfill(json=told)

    ui.page.route("**/next?*", answer)
    page = ui.open(f"/datasets/{dataset}/edit")
    canvas = page.locator(".editor canvas")
    assert shown(page) == "1.png"
    for name in ("5.png", "3.png", "4.png", "5.png"):  # the first was shown already
        canvas.press("u")
        expect(page.locator(".thumb[aria-current]")).to_have_attribute("title", name)
    page.wait_for_timeout(100)  # until it is drawn
    click(page, 20, 25)
    expect(page.locator(".thumb[aria-current]")).to_have_attribute("aria-label", "5.png, 1 point")
    order = page.get_by_label("Order of the images without points")
    order.select_option("as they are listed")
    button = page.get_by_role("button", name="Skip to an image without points")
    button.click()
    expect(page.locator(".thumb[aria-current]")).to_have_attribute("title", "1.png")
    button.click()
    expect(page.locator(".thumb[aria-current]")).to_have_attribute("title", "3.png")
    ui.looks("next-image", shots=False)
    page.reload()  # the choice is kept
    ui.settled()
    expect(order).to_have_value("listed")


def test_the_review_goes_image_by_image(ui: Any) -> None:
    dataset = ui.service.dataset()
    job = ui.service.job(dataset)
    described(ui.service, dataset)
    page = ui.open(f"/jobs/{job}/review")
    expect(page.locator("[aria-current=true]", has_text="the worst quality first")).to_be_visible()
    page.get_by_role("link", name="Image by image").click()
    page.wait_for_url("**/review?order=images")
    ui.settled()
    ranked = ui.service.ask(f"/datasets/{dataset}/next?job={job}&images=open")["images"]
    files = [image["file_name"] for image in ranked]
    assert len(files) == 3
    names = page.locator(".aside .hint").first
    accepted = 0
    for file in files:
        for _ in range(2):  # masks of each image
            expect(names).to_contain_text(file)
            page.keyboard.press("a")
            accepted += 1
            expect(page.locator(".counts")).to_contain_text(f"{accepted} accepted")
    expect(page.locator("main")).to_contain_text("Every mask is decided")
    expect(page.locator(".counts")).to_contain_text("6 accepted")
