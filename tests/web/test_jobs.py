"""Training from the page: the dialog, the job's view as it moves, cancel, failure, the key."""

import re
import subprocess
import sys
from collections.abc import Callable

from playwright.sync_api import BrowserContext, Page, expect

from .conftest import ROOT, Service, Ui, watched

SLOW = ("--steps", "120", "--sleep", "0.1")
JOB = re.compile(r"#/jobs/([0-9a-f]{32})$")


def job_of(page: Page) -> str:
    page.wait_for_url(JOB)
    found = JOB.search(page.url)
    assert found
    return found[1]


def state(page: Page, text: str) -> None:
    expect(page.locator("main .badge").first).to_have_text(text)


def test_train_and_watch_it_move(ui) -> None:
    """Stages, progress, losses and warnings come over SSE; nothing is reloaded."""
    ui.service.trainer(*SLOW)
    dataset = ui.service.dataset("to train on")
    page = ui.open(f"/datasets/{dataset}")
    page.get_by_role("button", name="Train").click()
    form = page.locator("dialog")
    expect(form).to_contain_text("3 images, 6 points")
    form.get_by_label("Preset").select_option("demo")
    expect(form).to_contain_text("minutes on two cores")
    expect(form).to_contain_text("on this machine")
    form.get_by_text("More settings").click()
    form.get_by_label("Method").select_option("sapnet")
    form.get_by_label("Proposals").select_option("hierarchy")
    form.get_by_label("Epochs").fill("3")
    form.get_by_label("Seed").fill("7")
    ui.looks("train")
    form.get_by_role("button", name="Train", exact=True).click()
    job = job_of(page)
    told = ui.service.ask(f"/jobs/{job}")
    assert (told["method"], told["preset"], told["seed"]) == ("sapnet", "demo", 7)
    state(page, "running")
    expect(page.locator(".stepper [data-state=now]")).to_contain_text("Training")
    expect(page.locator("main")).to_contain_text("to the end of this stage")
    shares = []
    for _ in range(3):
        shares.append(float(page.locator("main progress").evaluate("p => p.value")))
        page.wait_for_timeout(1300)
    assert shares == sorted(shares)
    assert shares[-1] > shares[0]
    expect(page.locator(".curve")).to_have_count(1)
    expect(page.locator(".legend")).to_contain_text("psm")
    ui.looks("job-running")
    expect(page.locator("main")).to_contain_text("weights are random")
    state(page, "succeeded with warnings")
    expect(page.get_by_role("link", name="See the results")).to_be_visible()
    expect(page.locator("main .share")).to_have_text("100 %")
    page.get_by_text("Log", exact=True).click()
    expect(page.locator(".log")).to_contain_text("a log line of the trainer")
    ui.looks("job-done")
    assert page.evaluate("performance.getEntriesByType('navigation').length") == 1


def test_a_job_that_is_over_is_told_from_its_events(ui) -> None:
    ui.service.trainer("--steps", "5")
    job = ui.service.job(ui.service.dataset())
    page = ui.open(f"/jobs/{job}")
    state(page, "succeeded with warnings")
    expect(page.locator(".stepper li[data-state=done]")).to_have_count(5)
    ui.open("/jobs")
    expect(page.locator("article").first).to_contain_text("sapnet++ · demo")
    ui.looks("jobs")


def test_the_stages_of_other_kinds_are_shown(ui) -> None:
    ui.service.trainer("--steps", "5")
    job = ui.service.job(ui.service.dataset())
    model = ui.service.ask(f"/jobs/{job}")["model_id"]
    predicted = {"model": model, "dataset": ui.service.ask(f"/jobs/{job}")["dataset_id"]}
    made = {
        "Masks": ui.service.ask(f"/jobs/{job}/exports", {"format": "coco"})["id"],
        "Conversion": ui.service.ask(f"/models/{model}/onnx", method="POST")["id"],
        "Prediction": ui.service.ask("/predict", predicted, Prefer="respond-async")["id"],
    }
    for stage, of_kind in made.items():
        page = ui.open(f"/jobs/{of_kind}")
        expect(page.locator(".stepper li").last).to_contain_text(stage)
        expect(page.locator(".stepper li[data-state=done]")).to_have_count(1)


def test_cancel_asks_first(ui) -> None:
    ui.service.trainer("--steps", "3000", "--sleep", "0.1")  # it ends by being cancelled
    job = ui.service.job(ui.service.dataset(), wait=False)
    page = ui.open(f"/jobs/{job}")
    state(page, "running")
    page.get_by_role("button", name="Cancel").click()
    page.locator("dialog").get_by_role("button", name="Back").click()
    assert ui.service.ask(f"/jobs/{job}")["state"] == "running"
    page.get_by_role("button", name="Cancel").click()
    ui.looks("job-cancel", shots=False)
    page.locator("dialog").get_by_role("button", name="Cancel the job").click()
    state(page, "cancelled")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_a_failure_says_why(ui) -> None:
    ui.service.trainer("--fail")
    job = ui.service.job(ui.service.dataset())
    page = ui.open(f"/jobs/{job}")
    state(page, "failed")
    expect(page.locator(".problem")).to_contain_text("loss term 'psm' became nan at step 3")
    expect(page.locator(".stepper [data-state=broke]")).to_contain_text("Training")
    ui.looks("job-failed")


def test_a_refused_training_is_explained_in_the_dialog(ui) -> None:
    ui.expected.append("422")
    dataset = ui.service.dataset()
    page = ui.open(f"/datasets/{dataset}")
    page.get_by_role("button", name="Train").click()
    form = page.locator("dialog")
    form.get_by_text("More settings").click()
    form.get_by_label("Seed").evaluate("node => { node.removeAttribute('min'); node.value = -1 }")
    form.get_by_role("button", name="Train", exact=True).click()
    expect(form.locator(".problem")).to_contain_text("seed")
    page.keyboard.press("Escape")
    expect(form).to_have_count(0)


def test_a_stream_that_breaks_is_taken_up_where_it_was(ui) -> None:
    """The connection goes; the page comes again with the last id, and misses nothing."""
    ui.service.trainer(*SLOW)
    job = ui.service.job(ui.service.dataset(), wait=False)
    asked: list[str | None] = []

    def watch(route) -> None:
        asked.append(route.request.headers.get("last-event-id"))
        if len(asked) == 2:
            route.abort()  # as if the service were away
        elif len(asked) == 1:
            first = ui.service.ask(f"/jobs/{job}/events?limit=2")["events"]
            lines = "".join(
                f"id: {e['id']}\nevent: {e['type']}\ndata: {dump(e)}\n\n" for e in first
            )
            route.fulfill(content_type="text/event-stream", body=lines)  # and then it breaks off
        else:
            route.continue_()

    ui.expected.append("Failed to load resource")
    page = ui.page
    page.route(f"**/jobs/{job}/events", watch)
    while len(ui.service.ask(f"/jobs/{job}/events?limit=2")["events"]) < 2:
        page.wait_for_timeout(100)
    ui.open(f"/jobs/{job}")
    state(page, "succeeded with warnings")
    assert asked[0] is None
    assert asked[1] == asked[2] == "2"


def dump(event: object) -> str:
    import json

    return json.dumps(event)


def test_a_key_is_asked_for_kept_for_the_tab_and_sent(
    context: BrowserContext, start_service: Callable[..., Service], shots
) -> None:
    service = start_service()
    made = subprocess.run(
        [sys.executable, "-m", "app.cli", "keys", "create", "me", "--scope", "write"],
        env={"PATH": "", "PYTHONPATH": str(ROOT), "SAPNET_DATA_DIR": str(service.folder / "var")},
        cwd=service.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"sapnet_\S+", made.stdout)
    assert found, made.stdout
    ui: Ui = watched(context, service, shots)
    page = ui.page
    page.goto(f"{service.url}/#/datasets")
    form = page.locator("dialog")
    expect(form).to_contain_text("A key is needed")  # keys are remembered a while
    ui.looks("key")
    form.get_by_label("Key").fill("sapnet_wrong")
    form.get_by_role("button", name="Use it").click()
    expect(form.get_by_label("Key")).to_have_value("")  # asked again
    form.get_by_label("Key").fill(found[0])
    form.get_by_role("button", name="Use it").click()
    ui.settled()
    expect(page.locator(".empty")).to_contain_text("Nothing here yet")
    page.reload()
    ui.settled()
    expect(page.locator("dialog")).to_have_count(0)
    assert page.evaluate("Object.keys(localStorage)") == []
