"""`sapnet-service hub`: models and data sets of a running service on the Hugging Face hub."""

from typing import Annotated

import typer

from app.cli.client import Key, Url
from app.cli.client import _client as connected

Repo = Annotated[str, typer.Argument(metavar="REPO", help="such as anna/cells")]
Token = Annotated[
    str | None, typer.Option(help="of the hub [HF_TOKEN]", show_default="of `hf auth login`")
]
Private = Annotated[
    bool | None, typer.Option("--private/--public", help="of a repository that is made")
]
Licence = Annotated[str | None, typer.Option("--licence", help="for the card: apache-2.0, …")]
Revision = Annotated[str | None, typer.Option(help="a branch, a tag or a commit")]

app = typer.Typer(no_args_is_help=True, help="Models and data sets on the Hugging Face hub.")


@app.command("push-model")
def push_model(
    model: Annotated[str, typer.Argument(help="a model's id or alias")],
    repo: Repo,
    licence: Licence = None,
    private: Private = None,
    token: Token = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Send a model: safetensors, config.json, and a card with figures, lineage and licences."""
    with connected(url, key) as client:
        options = {"licence": licence, "private": private, "token": token}
        typer.echo(client.push_model(model, repo, **options))  # type: ignore[arg-type]


@app.command("pull-model")
def pull_model(
    repo: Repo,
    revision: Revision = None,
    token: Token = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Bring a model into the service; prints its id."""
    with connected(url, key) as client:
        typer.echo(client.pull_model(repo, revision=revision, token=token).id)


@app.command("push-dataset")
def push_dataset(
    dataset: Annotated[str, typer.Argument(help="a data set's id")],
    repo: Repo,
    job: Annotated[str | None, typer.Option(help="whose masks go with it")] = None,
    licence: Licence = None,
    private: Private = None,
    token: Token = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Send a data set: an imagefolder with its subsets, masks and a card."""
    with connected(url, key) as client:
        options = {"licence": licence, "private": private, "token": token}
        typer.echo(client.push_dataset(dataset, repo, job=job, **options))  # type: ignore[arg-type]


@app.command("pull-dataset")
def pull_dataset(
    repo: Repo,
    name: Annotated[str | None, typer.Option(help="of the data set; the repository's")] = None,
    revision: Revision = None,
    token: Token = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Bring a data set into the service; prints its id."""
    with connected(url, key) as client:
        made = client.pull_dataset(repo, name=name, revision=revision, token=token)
        typer.echo(made.id)
