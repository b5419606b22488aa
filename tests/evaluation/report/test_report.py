"""report.html: whole, escaped, without scripts, with and without truth, and of nothing."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from PIL import Image

from sapnet.evaluation.report import render_report, write_report
from sapnet.evaluation.report.html import Html, duration, element
from sapnet.evaluation.report.thumbnails import SIDE, Thumbnails, window_of
from sapnet.types import Category

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Elements as they come; says where one is closed that was not open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.words = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.seen if name == tag]


def read(inputs):
    reader = Reader(render_report(inputs))
    assert reader.open == []
    return reader


@pytest.mark.slow
def test_it_is_whole_and_tells_everything(make_inputs, tmp_path):
    path = tmp_path / "result" / "report.html"
    write_report(path, make_inputs())
    text = path.read_text()
    assert text.startswith("<!doctype html>")
    reader = Reader(text)
    words = " ".join(reader.words)
    for told in ("ant", "bee", "hierarchy", "1 h 6 min", "900 MB", "--set train.epochs=6", "0.250"):
        assert told in words, told
    assert {"Data", "From proposals to masks", "Masks", "Quality"} <= set(reader.words)
    assert {link["href"][1:] for link in reader.all("a")} == {h["id"] for h in reader.all("h2")}


def test_nothing_runs_and_nothing_is_fetched(make_inputs):
    reader = read(make_inputs())
    assert not reader.all("script")
    for name, attributes in reader.seen:
        assert not [key for key in attributes if key.startswith("on")], name
        for key in ("src", "href"):
            assert attributes.get(key, "#").startswith(("#", "data:image/jpeg;base64,"))


def test_every_image_and_chart_says_what_it_shows(make_inputs):
    reader = read(make_inputs())
    assert all(image["alt"] for image in reader.all("img"))
    assert all(chart["aria-label"] and chart["role"] == "img" for chart in reader.all("svg"))
    assert reader.all("html")[0]["lang"] == "en"


@pytest.mark.slow
def test_images_are_of_the_masks(make_inputs):
    inputs = make_inputs()
    images = read(inputs).all("img")
    # two whole images; three best, three worst, three doubtful
    assert len(images) == 2 + 3 * 3
    for image in images:
        content = base64.b64decode(image["src"].partition(",")[2])
        image = Image.open(io.BytesIO(content))
        image.load()
        assert max(image.size) <= 2 * SIDE + 4
    assert len(read(make_inputs(truth=False)).all("img")) == 2 + 3 + 3


def test_names_cannot_break_out(make_inputs):
    evil = '<img src=x onerror="alert(1)">', "</style><script>alert(2)</script>"
    aside = {"image_id": 3, "file_name": "<b>.png", "stage": "train", "error": "a & b"}
    inputs = make_inputs(names=evil, set_aside=[aside])
    reader = read(inputs)
    assert not reader.all("script")
    assert not [a for a in reader.all("img") if a["src"] == "x"]
    words = " ".join(reader.words)
    assert evil[0] in words
    assert "<b>.png (train): a & b" in words
    assert any(evil[0] in image["alt"] for image in reader.all("img"))


def test_half_a_character_in_a_name_is_no_hindrance(make_inputs, tmp_path):
    write_report(tmp_path / "report.html", make_inputs(names=("\ud800", "b")))
    assert (tmp_path / "report.html").read_bytes().decode()


def test_a_run_that_went_on_from_a_model_says_so(make_inputs):
    weights = {"kind": "file", "detail": "w.pt", "sha256": None, "model": "ef" * 32}
    words = " ".join(read(make_inputs(weights=weights)).words)
    assert "sha256 efefefefefefefef…" in words
    assert '"from_model": "…"' in words
    assert "sapnet train" not in words


def test_without_ground_truth_nothing_is_compared_with_it(make_inputs):
    words = " ".join(read(make_inputs(truth=False)).words)
    assert "From proposals" not in words
    assert "AUROC" not in words
    assert "highest quality" in words


def test_a_run_without_annotations(make_inputs):
    inputs = make_inputs(truth=False, annotated=False, losses=[])
    words = " ".join(read(inputs).words)
    assert "There are no masks." in words
    assert "No losses were kept." in words


def test_images_that_are_gone_have_no_thumbnail(make_inputs):
    inputs = make_inputs()
    inputs.paths[1].unlink()
    assert len(read(inputs).all("img")) == 1 + 3


def test_the_budget_holds(make_inputs):
    inputs = make_inputs()
    one = Thumbnails(inputs.paths).of_mask(inputs.masks[0], inputs.points.annotations[0], None)
    assert one is not None
    few = Thumbnails(inputs.paths, budget=len(one) + 10)
    assert few.of_mask(inputs.masks[0], inputs.points.annotations[0], None) == one
    assert few.of_mask(inputs.masks[0], inputs.points.annotations[0], None) is None


def test_charts_are_well_formed(make_inputs):
    charts = re.findall(r"<svg.*?</svg>", render_report(make_inputs()), re.S)
    assert len(charts) == 6  # bags, ladder, one loss, histogram, reliability, time
    for chart in charts:
        ElementTree.fromstring(chart)
        assert "nan" not in chart


@pytest.mark.slow
@pytest.mark.parametrize("truth", [True, False])
def test_one_step_and_one_mask_do(make_inputs, truth):
    inputs = make_inputs(truth=truth, losses=[{"step": 1, "losses": {"psm": 0.0}}])
    assert "1 steps" in " ".join(read(inputs).words)


def test_windows_stay_in_the_image(make_inputs):
    inputs = make_inputs()
    for mask, annotation in zip(inputs.masks, inputs.points.annotations, strict=True):
        left, top, right, bottom = window_of(
            [mask.segmentation], (annotation.x, annotation.y), (60, 80)
        )
        assert 0 <= left <= annotation.x <= right <= 80
        assert 0 <= top <= annotation.y <= bottom <= 60
        assert right - left >= 24


def test_elements_escape_text():
    assert element("g", "a<b", Html("<br/>"), 1, class_='"x"', rx=None) == (
        '<g class="&#34;x&#34;">a&lt;b<br/>1</g>'
    )


def test_a_class_without_masks_has_no_figures(make_inputs):
    """A dash, not a quality of nought."""
    inputs = make_inputs()
    points = replace(
        inputs.points, categories=(*inputs.points.categories, Category(9, "never drawn"))
    )
    page = render_report(replace(inputs, points=points))
    row = re.search(r"never drawn</th>(.*?)</tr>", page)
    assert re.findall(r"<td>(.*?)</td>", row[1]) == ["0", "–", "–"]


def test_many_classes_are_folded(make_inputs):
    inputs = make_inputs()
    more = tuple(Category(100 + n, f"class {n}") for n in range(14))
    points = replace(inputs.points, categories=(*inputs.points.categories, *more))
    page = render_report(replace(inputs, points=points))
    folded = re.search(r"<summary>6 more classes</summary>(.*?)</details>", page, re.S)
    assert re.findall(r"class \d+", folded[1]) == [f"class {n}" for n in range(8, 14)]


def test_of_many_failed_images_the_first_are_listed(make_inputs):
    failed = [
        {"image_id": n, "file_name": f"bad_{n}.png", "stage": "train", "error": "truncated"}
        for n in range(23)
    ]
    words = " ".join(read(make_inputs(set_aside=failed)).words)
    assert "could not be used (23)" in words
    assert "bad_19.png" in words
    assert "bad_20.png" not in words
    assert "… and 3 more" in words


def test_durations():
    said = [duration(s) for s in (0.04, 9.96, 42, 185, 7440)]
    assert said == ["0.0 s", "10.0 s", "42 s", "3 min 5 s", "2 h 4 min"]
