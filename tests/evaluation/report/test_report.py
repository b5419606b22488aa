"""report.html: whole, escaped, without scripts, with and without truth, and of nothing."""

import base64
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from PIL import Image

from sapnet.evaluation.report import page, write_report
from sapnet.evaluation.report import thumbnails as pictures
from sapnet.evaluation.report.html import duration, el, join
from sapnet.evaluation.report.thumbnails import Pictures, window_of

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


def read(story):
    reader = Reader(str(page(story)))
    assert reader.open == []
    return reader


def test_it_is_whole_and_tells_everything(make_story, tmp_path):
    path = tmp_path / "result" / "report.html"
    write_report(path, make_story())
    text = path.read_text()
    assert text.startswith("<!doctype html>")
    reader = Reader(text)
    words = " ".join(reader.words)
    for told in ("ant", "bee", "hierarchy", "1 h 6 min", "900 MB", "--set train.epochs=6", "0.250"):
        assert told in words, told
    assert {"Data", "Ladder of methods", "Masks", "Quality"} <= set(reader.words)
    assert {link["href"][1:] for link in reader.all("a")} == {h["id"] for h in reader.all("h2")}


def test_nothing_runs_and_nothing_is_fetched(make_story):
    reader = read(make_story())
    assert not reader.all("script")
    for name, attributes in reader.seen:
        assert not [key for key in attributes if key.startswith("on")], name
        for key in ("src", "href"):
            assert attributes.get(key, "#").startswith(("#", "data:image/jpeg;base64,"))


def test_every_picture_and_chart_says_what_it_shows(make_story):
    reader = read(make_story())
    assert all(image["alt"] for image in reader.all("img"))
    assert all(chart["aria-label"] and chart["role"] == "img" for chart in reader.all("svg"))
    assert reader.all("html")[0]["lang"] == "en"


def test_pictures_are_of_the_masks(make_story):
    story = make_story()
    images = read(story).all("img")
    # two whole images; three best, three worst, three doubtful
    assert len(images) == 2 + 3 * 3
    for image in images:
        content = base64.b64decode(image["src"].partition(",")[2])
        picture = Image.open(io.BytesIO(content))
        picture.load()
        assert max(picture.size) <= 2 * pictures.SIDE + 4
    assert len(read(make_story(truth=False)).all("img")) == 2 + 3 + 3


def test_names_cannot_break_out(make_story):
    evil = '<img src=x onerror="alert(1)">', "</style><script>alert(2)</script>"
    aside = {"image_id": 3, "file_name": "<b>.png", "stage": "train", "error": "a & b"}
    story = make_story(names=evil, set_aside=[aside])
    reader = read(story)
    assert not reader.all("script")
    assert not [a for a in reader.all("img") if a["src"] == "x"]
    words = " ".join(reader.words)
    assert evil[0] in words
    assert "<b>.png (train): a & b" in words
    assert any(evil[0] in image["alt"] for image in reader.all("img"))


def test_half_a_character_in_a_name_is_no_hindrance(make_story, tmp_path):
    write_report(tmp_path / "report.html", make_story(names=("\ud800", "b")))
    assert (tmp_path / "report.html").read_bytes().decode()


def test_a_run_that_went_on_from_a_model_says_so(make_story):
    weights = {"kind": "file", "detail": "w.pt", "sha256": None, "model": "ef" * 32}
    words = " ".join(read(make_story(weights=weights)).words)
    assert "sha256 efefefefefefefef…" in words
    assert '"from_model": "…"' in words
    assert "sapnet train" not in words


def test_without_truth_there_is_no_ladder(make_story):
    words = " ".join(read(make_story(truth=False)).words)
    assert "Ladder" not in words
    assert "AUROC" not in words
    assert "highest quality" in words


def test_a_run_without_annotations(make_story):
    story = make_story(truth=False, annotated=False, losses=[])
    words = " ".join(read(story).words)
    assert "There are no masks." in words
    assert "No losses were kept." in words


def test_images_that_are_gone_leave_out_their_pictures(make_story):
    story = make_story()
    story.paths[1].unlink()
    assert len(read(story).all("img")) == 1 + 3


def test_the_budget_holds(make_story):
    story = make_story()
    one = Pictures(story.paths).of_mask(story.rows[0], story.points.annotations[0], None)
    assert one is not None
    few = Pictures(story.paths, budget=len(one) + 10)
    assert few.of_mask(story.rows[0], story.points.annotations[0], None) == one
    assert few.of_mask(story.rows[0], story.points.annotations[0], None) is None


def test_charts_are_well_formed(make_story):
    charts = re.findall(r"<svg.*?</svg>", str(page(make_story())), re.S)
    assert len(charts) == 6  # bags, ladder, one loss, histogram, reliability, time
    for chart in charts:
        ElementTree.fromstring(chart)
        assert "nan" not in chart


@pytest.mark.parametrize("truth", [True, False])
def test_one_step_and_one_mask_do(make_story, truth):
    story = make_story(truth=truth, losses=[{"step": 1, "losses": {"psm": 0.0}}])
    assert "1 steps" in " ".join(read(story).words)


def test_windows_stay_in_the_image(make_story):
    story = make_story()
    for row, annotation in zip(story.rows, story.points.annotations, strict=True):
        left, top, right, bottom = window_of(
            [row["segmentation"]], (annotation.x, annotation.y), (60, 80)
        )
        assert 0 <= left <= annotation.x <= right <= 80
        assert 0 <= top <= annotation.y <= bottom <= 60
        assert right - left >= 24


def test_markup_escapes_what_is_not_markup():
    assert el("p", "a<b", el("br"), None, class_='"x"') == (
        '<p class="&quot;x&quot;">a&lt;b<br/></p>'
    )
    assert join(1, False, el("i")) == "1<i></i>"


def test_durations():
    said = [duration(s) for s in (0.04, 9.96, 42, 185, 7440)]
    assert said == ["0.0 s", "10.0 s", "42 s", "3 min 5 s", "2 h 4 min"]
