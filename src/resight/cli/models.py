"""`resight models list`."""

from __future__ import annotations

from dataclasses import dataclass

from resight.cli.parsing import parse, print_json
from resight.errors import ConfigError


@dataclass(frozen=True)
class List:
    """List known published weights; nothing is downloaded."""

    find: str | None = None
    """Only rows with this text in their name, backbone or training data."""
    details: bool = False
    """Print licence, address, convert command and source of each row, not one line."""
    json: bool = False
    """Print JSON."""


def run(arguments: list[str]) -> None:
    """Print the known published weights."""
    if arguments[:1] not in (["list"], ["-h"], ["--help"]):
        raise ConfigError("the command is: resight models list")
    options = parse(List, arguments[1:] if arguments[0] == "list" else arguments, "resight models list")
    from resight.models.published import PublishedModel, list_models

    rows = list_models(options.find or "")
    if options.json:
        print_json([row.model_dump(mode="json") for row in rows])
        return

    def figures(row: PublishedModel) -> str:
        texts = [
            f"{name} {value:.1f}" for name, value in (("mAP", row.mean_ap), ("R1", row.rank1)) if value is not None
        ]
        return f"{row.tested_on}: {', '.join(texts)}" if texts else "no figures seen"

    width = max((len(row.name) for row in rows), default=0) + 2
    backbone_width = max((len(row.backbone) for row in rows), default=0) + 2
    for row in rows:
        print(f"{row.name:{width}s}{row.backbone:{backbone_width}s}{figures(row)}")
        if options.details:
            lines = {"trained on": row.trained_on, "licence": row.licence, "file": row.file, "convert": row.convert}
            lines |= {"read at": row.source} | ({"note": row.note} if row.note else {})
            for title, text in lines.items():
                print(f"    {title:12s}{text}")
    print(f"{len(rows)} published files of weights; their licences and data sets may forbid commercial use: read them")
