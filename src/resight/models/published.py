"""Known published weights: what they are, how good they are said to be, and where they are."""

import tomllib
from functools import cache
from pathlib import Path

from pydantic import Field

from resight.config.section import Section


class PublishedModel(Section):
    """A published file of weights that `resight convert` reads. Nothing of it is part of Resight."""

    name: str
    """The name of the row: family, network, and the data set of the training."""
    backbone: str
    """The backbone that a conversion gives."""
    trained_on: str
    """What the weights were trained on."""
    tested_on: str | None = None
    """The data set of the figures."""
    mean_ap: float | None = Field(default=None, ge=0, le=100)
    """Published mAP in percent, without re-ranking; None where it was not seen."""
    rank1: float | None = Field(default=None, ge=0, le=100)
    """Published rank-1 accuracy in percent, without re-ranking; None where it was not seen."""
    licence: str
    """Licence as far as it was seen; data sets may restrict the use of weights further."""
    file: str
    """Address of the file, or of the page that links to it."""
    convert: str
    """The command that converts it."""
    source: str
    """Address where the row, with its figures, was read."""
    note: str | None = None
    """What else has to be known."""


def list_models(find: str = "") -> tuple[PublishedModel, ...]:
    """List the published weights that are known; nothing is downloaded.

    Args:
        find: only rows with this text in their name, backbone or training data, in any case of its letters.

    Example:
        `[model.name for model in resight.list_models("osnet") if model.tested_on == "Market-1501"]`
    """
    word = find.lower()
    return tuple(
        row for row in _read_rows() if any(word in text.lower() for text in (row.name, row.backbone, row.trained_on))
    )


@cache
def _read_rows() -> tuple[PublishedModel, ...]:
    rows = tomllib.loads(Path(__file__).with_name("published.toml").read_text("utf-8"))["model"]
    return tuple(PublishedModel.model_validate(row) for row in rows)
