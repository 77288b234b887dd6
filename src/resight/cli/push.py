"""`resight push`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from resight.cli.output import Output, metavar, show
from resight.cli.parsing import parse


@dataclass(frozen=True)
class Push(Output):
    """Publish a model folder on the Hugging Face Hub.

    Uploaded are model.safetensors, config.json (which has the names of the identities and cameras of the training),
    calibration.json where there is one, and a page README.md: the folder's, or one that is written from the card, the
    run's configuration and the figures. Nothing else leaves this machine, and nothing does with --dry-run. Log in with
    `hf auth login`, or set HF_TOKEN.
    """

    folder: Positional[Annotated[Path, metavar("FOLDER")]]
    """A model folder, such as runs/NAME/best."""
    repository: Positional[Annotated[str, metavar("ORG/NAME")]]
    """Where to publish it; created if it does not exist."""
    private: bool = False
    """A repository that is created can be read by its owners alone."""
    revision: Annotated[str | None, metavar("BRANCH")] = None
    """Branch to upload to; created if it does not exist. None: main."""
    message: Annotated[str | None, metavar("TEXT")] = None
    """Message of the commit."""
    licence: Annotated[str | None, metavar("NAME")] = None
    """Licence of the weights, by the Hub's name: mit, apache-2.0, cc-by-nc-4.0, other, ..."""
    intended_use: Annotated[str | None, metavar("TEXT")] = None
    """What the model is for."""
    limits: Annotated[str | None, metavar("TEXT")] = None
    """What the model cannot do, or must not be used for."""
    figures: Annotated[tuple[Path, ...], metavar("FILE.json ...")] = ()
    """Files of `resight evaluate --figures` of this model. Without any: those of its run, for the best checkpoint."""
    dry_run: bool = False
    """Print the page and the files, and upload nothing."""


def run(arguments: list[str]) -> None:
    """Publish, and print what was uploaded and where."""
    options = parse(Push, arguments, "resight push")
    from resight.report.model_page import Details
    from resight.report.publish import push

    details = Details().changed(licence=options.licence, intended_use=options.intended_use, limits=options.limits)
    published = push(
        options.folder, options.repository, options.private, options.revision, options.message, details,
        options.figures, options.dry_run,
    )  # fmt: skip
    lines = [f"{size:>14,} bytes  {name}" for name, size in published.files.items()]
    if published.url is None:
        lines = [published.page, *lines, f"nothing was uploaded to {published.repository}"]
    else:
        lines.append(f"published: {published.url}; load it with hf://{published.repository}")
    show(options, published, *lines)
