"""The options of each action of `resight gallery`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.embedding_options import EmbeddingOptions
from resight.config.folder import FolderOptions


@dataclass(frozen=True)
class Create:
    """Create a gallery for the embeddings of a model."""

    gallery: Positional[str]
    """FOLDER (searched exactly while small, then with an index), exact:FOLDER,
    postgresql://USER@HOST/DATABASE?gallery=NAME, or qdrant://HOST:PORT/COLLECTION."""
    model: Path
    """The model folder."""
    embedding: OmitArgPrefixes[EmbeddingOptions] = field(default_factory=EmbeddingOptions)


@dataclass(frozen=True)
class Add:
    """Embed images and store a record for each sighting. Records that exist are skipped, so that an interrupted command
    can be run again."""

    gallery: Positional[str]
    """The gallery; created if it does not exist and --model is given."""
    images: Positional[tuple[Path, ...]] = ()
    """Image files, folders, or tables (CSV, Parquet) with the columns of `own` data sets."""
    model: Path | None = None
    """Model folder of a new gallery; for an existing gallery, it must be the gallery's model."""
    embeddings: Path | None = None
    """File of embeddings of the gallery's model, to add instead of images."""
    folder: OmitArgPrefixes[FolderOptions] = field(default_factory=FolderOptions)
    identity_from_folder: bool = False
    """Take the name of an image's folder as its identity."""
    thumbnails: bool = False
    """Store a small copy of each image in the gallery."""
    metadata: tuple[str, ...] = ()
    """Metadata of all records, as NAME=VALUE; a value that is valid JSON (3, true) keeps its type."""
    device: str = "auto"
    """`cpu`, `cuda`, ... or `auto`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the matrix products; `auto` is measured on this machine."""
    quiet: bool = False
    """Show no progress."""


@dataclass(frozen=True)
class Search:
    """Search the gallery for the records that are most similar to the queries."""

    gallery: Positional[str]
    """The gallery."""
    images: Positional[tuple[Path, ...]] = ()
    """Query images; each is a query of its own."""
    id: tuple[str, ...] = ()
    """Ids of records to search with instead of images."""
    same_object: bool = False
    """The query images show the same object: search with the mean of their embeddings."""
    query_camera: str | None = None
    """Camera of the query images."""
    query_view: str | None = None
    """View of the query images."""
    query_modality: str | None = None
    """Modality of the query images: rgb (the default), nir or tir."""
    k: int = 10
    """Number of answers for each query."""
    group: Literal["identity", "tracklet"] | None = None
    """One answer for each identity or tracklet."""
    rerank: bool = False
    """Re-rank the nearest records by k-reciprocal neighbors."""
    prior: float = 0.5
    """Probability, before the comparison, that two records have the same identity."""
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
    """Remove records, or all records of an identity, with everything derived from them."""

    gallery: Positional[str]
    """The gallery."""
    id: tuple[str, ...] = ()
    """Record ids to remove."""
    identity: str | None = None
    """Remove all records of this identity."""


@dataclass(frozen=True)
class Assign:
    """Assign records to an identity, to merge or split identities. `resight gallery undo` takes it back."""

    gallery: Positional[str]
    """The gallery."""
    id: Positional[tuple[str, ...]] = ()
    """Record ids."""
    of: str | None = None
    """Also assign all records of this identity, which merges it into the other."""
    identity: str | None = None
    """The new identity. None: the records become unknown."""


@dataclass(frozen=True)
class Cluster:
    """Group records into identities by clustering."""

    gallery: Positional[str]
    """The gallery."""
    threshold: float | None = None
    """Lowest mean similarity at which groups are joined. None: the calibrated threshold of the model."""
    neighbors: int = 20
    """Number of nearest neighbors of each record that are considered."""
    all: bool = False
    """Include records that have an identity, and compare the groups with the identities."""
    assign: str | None = None
    """Assign the groups to NAME-1, NAME-2, ...; `resight gallery undo` takes back one group at a time."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Undo:
    """Undo the last assignment."""

    gallery: Positional[str]
    """The gallery."""


@dataclass(frozen=True)
class Stats:
    """Count the records of a gallery."""

    gallery: Positional[str]
    """The gallery."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Verify:
    """Read all records and report faults; with --identity, also check that nothing of the identity is left."""

    gallery: Positional[str]
    """The gallery."""
    identity: str | None = None
    """An identity that was removed."""


@dataclass(frozen=True)
class Copy:
    """Copy all records to another gallery, which is created if it does not exist."""

    gallery: Positional[str]
    """The gallery."""
    to: Positional[str]
    """The other gallery."""


@dataclass(frozen=True)
class Repair:
    """Copy what is whole of a corrupt gallery to a new one, and say what is not."""

    gallery: Positional[str]
    """The corrupt gallery, a folder; it is not changed."""
    to: Positional[str]
    """A folder that does not exist or is empty."""


@dataclass(frozen=True)
class ToParquet:
    """Write all records to one Parquet file, for other tools."""

    gallery: Positional[str]
    """The gallery."""
    file: Positional[Path]
    """The file to write."""


@dataclass(frozen=True)
class FromParquet:
    """Add the records of a file of `resight gallery to-parquet`."""

    file: Positional[Path]
    """The file."""
    gallery: Positional[str]
    """The gallery, which is created if it does not exist."""
