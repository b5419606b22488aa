"""The report in Debian's Chromium: readable on a phone, light or dark, and for everybody."""

import shutil

import pytest

from sapnet.evaluation.report import write_report

pytest.importorskip("playwright", reason="playwright is not installed (pip install -e '.[dev]')")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    assert chromium, "Debian's chromium is needed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"], timeout=120_000
        )
        yield browser
        browser.close()


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1200, "light"), (360, "light")])
@pytest.mark.parametrize("truth", [True, False])
def test_it_can_be_read(browser, make_inputs, tmp_path, width, scheme, truth):
    names = ("a class with quite a long name, as some datasets have", "b" * 60)
    write_report(tmp_path / "report.html", make_inputs(truth=truth, names=names))
    size = {"width": width, "height": 800}
    # axe runs in the page, which lets nothing run
    context = browser.new_context(viewport=size, color_scheme=scheme, bypass_csp=True)
    try:
        page = context.new_page()
        page.goto((tmp_path / "report.html").as_uri())
        wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1] == width
        ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        shade = sum(int(v) for v in ground.removeprefix("rgb(").removesuffix(")").split(","))
        assert (shade < 200) == (scheme == "dark")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    finally:
        context.close()
