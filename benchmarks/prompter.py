"""Trains the learned prompter in slices, packs its weights, and measures them.

    python benchmarks/prompter.py train --data ../shared/data/prompter --work DIR --seconds 3600
    python benchmarks/prompter.py pack --data ../shared/data/prompter --work DIR \\
        --measure ../shared/data/coco96 --measure ../shared/data/nuclei48
    python benchmarks/prompter.py measure ../shared/data/coco96 --kind hierarchy+prompter

`train` goes on from where the last slice ended; `train.log` in DIR has a line every hundred steps.
`pack` fits the ranker on images that the network has not seen and writes the package's weights,
`card` measures them and writes docs/prompter.md. A folder to measure holds images/, points.json and
instances.json; nothing is fitted on it.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import prompter_card
import prompter_measure
import prompter_rank
import prompter_train
import torch
import typer

from sapnet.proposals import build_generator
from sapnet.proposals.prompter import weights
from sapnet.proposals.prompter.network import Prompter

app = typer.Typer(add_completion=False, help=__doc__)
Data = Annotated[Path, typer.Option(help="folder of the sets to train on, with sets.json")]
Work = Annotated[Path, typer.Option(help="where the state of the training and its log lie")]
Name = Annotated[str, typer.Option(help='of the state; "all" is of images of any licence')]
Most = Annotated[int | None, typer.Option(help="only so many images of each folder")]


@app.command()
def train(
    data: Data,
    work: Work,
    seconds: Annotated[float, typer.Option(help="of this slice")] = 3600,
    name: Name = "strict",
    every: Annotated[bool, typer.Option("--all", help="COCO's photographs of any licence")] = False,
    decay: Annotated[bool, typer.Option(help="bring the rate to 0, into NAME-final")] = False,
    from_package: Annotated[bool, typer.Option(help="start from the shipped weights")] = False,
) -> None:
    """One slice of training; resumes."""
    if every != (name == "all"):
        raise typer.BadParameter("--all goes with --name all, and other names without it")
    prompter_train.run(
        data, work, name, seconds=seconds, free=not every, decay=decay, packaged=from_package
    )


@app.command()
def pack(data: Data, work: Work, name: Name = "strict") -> None:
    """Fit the ranker on images that the network has not seen, and write the package's weights."""
    torch.set_num_threads(1)
    trainer = prompter_train.Trainer(work / f"{name}.pt")
    model = Prompter()
    model.load_state_dict(trainer.mean)
    kind = name.removesuffix("-final")
    held_out = prompter_rank.held_out(data, free=kind != "all")
    points = prompter_rank.gather(weights.ready(model), held_out)
    state = trainer.state
    training = {
        "data": kind,
        "steps": state.step,
        "windows": state.windows,
        "cpu_seconds": round(state.cpu),
        "seeds": state.seeds,
        "body_tuned": state.step > prompter_train.BODY_FROM,
    }
    weights.save(trainer.mean, prompter_rank.fit(points), weights.FOLDER, {"training": training})


@app.command()
def card(
    data: Data,
    folders: Annotated[list[Path], typer.Argument(help="to measure")],
    most: Most = None,
    out: Path = Path("docs/prompter.md"),
) -> None:
    """Measure the shipped weights and write the model card."""
    torch.set_num_threads(1)
    figures = {folder.name: _measured("hierarchy+prompter", folder, most) for folder in folders}
    training: Any = weights.card()["training"]
    out.write_text(prompter_card.text(training, data, figures))


@app.command("measure")
def measured(
    folders: list[Path],
    kind: Annotated[list[str] | None, typer.Option(help="of proposals; may be repeated")] = None,
    most: Most = None,
) -> None:
    """Most confident and best of sixteen, by size, and CPU seconds; a JSON line each."""
    torch.set_num_threads(1)
    for folder in folders:
        for each in kind or ["hierarchy", "prompter", "hierarchy+prompter"]:
            typer.echo(
                json.dumps({"set": folder.name, "kind": each, **_measured(each, folder, most)})
            )


def _measured(kind: str, folder: Path, most: int | None) -> dict[str, Any]:
    rows, cost = prompter_measure.rows(build_generator({"kind": kind}), folder, most)
    return prompter_measure.figures(rows) | {k: round(v, 3) for k, v in cost.items()}


if __name__ == "__main__":
    app()
