"""What each action of `resight gallery` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from resight.config.sections import Precision

Device = Annotated[str, tyro.conf.arg(help="`cpu`, `cuda`, ... or `auto`.")]
Computed = Annotated[
    Precision, tyro.conf.arg(help="Arithmetic of the matrix products; `auto` is measured on this machine.")
]


@dataclass(frozen=True)
class Create:
    """Make a gallery for the embeddings of one model."""

    gallery: Positional[str]
    """Where: FOLDER (exact while it is small, then through an index), exact:FOLDER,
    postgresql://USER@HOST/DATABASE?gallery=NAME, or qdrant://HOST:PORT/COLLECTION."""
    model: Path
    """The model's folder."""


@dataclass(frozen=True)
class Add:
    """Embed pictures and keep them; what is there already is left as it is, so that a run that was stopped can be run
    again."""

    gallery: Positional[str]
    """The gallery."""
    images: Positional[tuple[Path, ...]] = ()
    """Picture files, folders, or tables (CSV, Parquet) with any of the columns that `own` data sets have."""
    embeddings: Path | None = None
    """Instead of pictures: a file that `resight extract` wrote with the gallery's model."""
    identity_from_folder: bool = False
    """Each picture is of the one that its folder is named after."""
    thumbnails: bool = False
    """Keep a small copy of each picture in the gallery."""
    metadata: tuple[str, ...] = ()
    """NAME=VALUE, of all of them; a value that is JSON (3, true) is taken as such."""
    device: Device = "auto"
    precision: Computed = "auto"


@dataclass(frozen=True)
class Search:
    """Who is this, and where were they seen?"""

    gallery: Positional[str]
    """The gallery."""
    images: Positional[tuple[Path, ...]] = ()
    """Picture files: of several, each is asked for."""
    id: tuple[str, ...] = ()
    """Ask for records of the gallery, instead."""
    together: bool = False
    """The pictures show the same one: ask for all of them at once."""
    k: int = 10
    """Answers."""
    group: Literal["identity", "tracklet"] | None = None
    """One answer for each identity or tracklet."""
    rerank: bool = False
    """Put the nearest in order by the neighbours that they share with the question."""
    prior: float = 0.5
    """How likely it was before anything was looked at that two records are of one identity."""
    camera: tuple[str, ...] = ()
    """Search records of these cameras alone."""
    identity: tuple[str, ...] = ()
    """Of these identities."""
    modality: tuple[str, ...] = ()
    """Of these modalities."""
    after: float | None = None
    """Of this time or later."""
    before: float | None = None
    """Of an earlier time."""
    metadata: tuple[str, ...] = ()
    """With NAME=VALUE."""
    json: bool = False
    """Print JSON."""
    device: Device = "auto"
    precision: Computed = "auto"


@dataclass(frozen=True)
class Remove:
    """Remove records, or everything of an identity, with every trace."""

    gallery: Positional[str]
    """The gallery."""
    id: tuple[str, ...] = ()
    """Of records."""
    identity: str | None = None
    """Everything of this one."""


@dataclass(frozen=True)
class Name:
    """Say who records are: merges and splits identities. `gallery undo` takes it back."""

    gallery: Positional[str]
    """The gallery."""
    id: Positional[tuple[str, ...]] = ()
    """Of records."""
    of: str | None = None
    """All records of this identity, besides: naming them after another merges the two."""
    identity: str | None = None
    """Who they are; without it nobody knows."""


@dataclass(frozen=True)
class Only:
    """The gallery that is meant."""

    gallery: Positional[str]
    """The gallery."""


@dataclass(frozen=True)
class Verify:
    """Read everything, and say what is wrong; or prove that nothing is left of an identity."""

    gallery: Positional[str]
    """The gallery."""
    identity: str | None = None
    """One that was removed."""


@dataclass(frozen=True)
class Export:
    """Copy all records to another gallery, which is made if it is not there."""

    gallery: Positional[str]
    """The gallery."""
    to: Positional[str]
    """The other one."""
