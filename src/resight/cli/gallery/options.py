"""The options of each action of `resight gallery`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.embedding_options import EmbeddingOptions


@dataclass(frozen=True)
class Create:
    """Make a gallery for the embeddings of one model."""

    gallery: Positional[str]
    """FOLDER (exact while it is small, then through an index), exact:FOLDER,
    postgresql://USER@HOST/DATABASE?gallery=NAME, or qdrant://HOST:PORT/COLLECTION."""
    model: Path
    """The model folder."""
    embedding: OmitArgPrefixes[EmbeddingOptions] = field(default_factory=EmbeddingOptions)


@dataclass(frozen=True)
class Add:
    """Embed images and store a record for each sighting; records that are present already stay as they are, so that an
    interrupted run can be run again."""

    gallery: Positional[str]
    """The gallery; it is made if it does not exist and --model is given."""
    images: Positional[tuple[Path, ...]] = ()
    """Picture files, folders, or tables (CSV, Parquet) with the columns of `own` data sets."""
    model: Path | None = None
    """The model folder: makes a new gallery; for one that exists, it must be the gallery's model."""
    embeddings: Path | None = None
    """Instead of images: a file of embeddings from the gallery's model."""
    identity_from_folder: bool = False
    """Each picture is of the identity that its folder is named after."""
    thumbnails: bool = False
    """Store a small copy of each picture in the gallery."""
    metadata: tuple[str, ...] = ()
    """NAME=VALUE, of all records; a value that is JSON (3, true) is taken as such."""
    device: str = "auto"
    """`cpu`, `cuda`, ... or `auto`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the matrix products; `auto` is measured on this machine."""
    quiet: bool = False
    """Show no progress."""


@dataclass(frozen=True)
class Search:
    """Search the gallery: have I seen this one before, and where?"""

    gallery: Positional[str]
    """The gallery."""
    images: Positional[tuple[Path, ...]] = ()
    """Query pictures, each searched by itself."""
    id: tuple[str, ...] = ()
    """Search by records of the gallery instead."""
    same_object: bool = False
    """The query pictures show the same object: search with all of them at once."""
    query_camera: str | None = None
    """The camera of the query pictures."""
    query_view: str | None = None
    """The view of the query pictures."""
    query_modality: str | None = None
    """The modality of the query pictures: rgb (the default), nir or tir."""
    k: int = 10
    """Answers for each query."""
    group: Literal["identity", "tracklet"] | None = None
    """One answer for each identity or tracklet."""
    rerank: bool = False
    """Order the nearest records by their common neighbours."""
    prior: float = 0.5
    """Probability, before the comparison, that two records are of one identity."""
    camera: tuple[str, ...] = ()
    """Search only records of these cameras."""
    identity: tuple[str, ...] = ()
    """Search only records of these identities."""
    modality: tuple[str, ...] = ()
    """Search only records of these modalities."""
    after: float | None = None
    """Search only records of this time or later, in seconds."""
    before: float | None = None
    """Search only records of an earlier time, in seconds."""
    metadata: tuple[str, ...] = ()
    """Search only records with NAME=VALUE."""
    json: bool = False
    """Print JSON."""
    device: str = "auto"
    """`cpu`, `cuda`, ... or `auto`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the matrix products; `auto` is measured on this machine."""


@dataclass(frozen=True)
class Remove:
    """Remove records, or everything of an identity, with all traces of it."""

    gallery: Positional[str]
    """The gallery."""
    id: tuple[str, ...] = ()
    """Record ids to remove."""
    identity: str | None = None
    """Remove everything of this identity."""


@dataclass(frozen=True)
class Assign:
    """Assign records to an identity: merges and splits identities. `gallery undo` takes it back."""

    gallery: Positional[str]
    """The gallery."""
    id: Positional[tuple[str, ...]] = ()
    """Record ids."""
    of: str | None = None
    """Also all records of this identity: assigning them to another one merges the two."""
    identity: str | None = None
    """The identity; without it the records become unknown."""


@dataclass(frozen=True)
class Cluster:
    """Group records into identities: those that have none, or all, to compare the groups with the names."""

    gallery: Positional[str]
    """The gallery."""
    threshold: float | None = None
    """The lowest mean similarity of groups that are joined. None: the model's calibrated threshold."""
    neighbors: int = 20
    """Of each record, that it can be joined through."""
    all: bool = False
    """Also records with an identity; prints how the groups agree with the identities."""
    assign: str | None = None
    """Assign each group to NAME-1, NAME-2, ...; `resight gallery undo` takes one back at a time."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Undo:
    """Take the last assignment back."""

    gallery: Positional[str]
    """The gallery."""


@dataclass(frozen=True)
class Stats:
    """Count what is in a gallery."""

    gallery: Positional[str]
    """The gallery."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Verify:
    """Read everything, and report what is wrong; or prove that nothing is left of an identity."""

    gallery: Positional[str]
    """The gallery."""
    identity: str | None = None
    """An identity that was removed."""


@dataclass(frozen=True)
class Copy:
    """Copy all records to another gallery, which is made if it does not exist."""

    gallery: Positional[str]
    """The gallery."""
    to: Positional[str]
    """The other gallery."""
