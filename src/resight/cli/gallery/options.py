"""The options of each action of `resight gallery`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.embedding_options import EmbeddingOptions
from resight.cli.output import Output, ProgressOutput, metavar
from resight.config.folder import FolderOptions

URL = Annotated[str, metavar("GALLERY")]
Name = Annotated[str | None, metavar("NAME")]
Names = Annotated[tuple[str, ...], metavar("NAME ...")]
Ids = Annotated[tuple[str, ...], metavar("ID ...")]
Images = Annotated[tuple[Path, ...], metavar("IMAGE ...")]
Pairs = Annotated[tuple[str, ...], metavar("NAME=VALUE ...")]
Seconds = Annotated[float | None, metavar("SECONDS")]
Folder = Annotated[Path | None, metavar("FOLDER")]


@dataclass(frozen=True)
class Create(Output):
    """Create a gallery for the embeddings of a model."""

    gallery: Positional[URL]
    """FOLDER (searched exactly while small, then with an index), exact:FOLDER,
    postgresql://USER@HOST/DATABASE?gallery=NAME, or qdrant://HOST:PORT/COLLECTION."""
    model: Annotated[Path, metavar("FOLDER")]
    """The model folder."""
    embedding: OmitArgPrefixes[EmbeddingOptions] = field(default_factory=EmbeddingOptions)


@dataclass(frozen=True)
class Add(ProgressOutput):
    """Embed images and store a record for each sighting. Records that exist are skipped, so that an interrupted command
    can be run again."""

    gallery: Positional[URL]
    """The gallery; created if it does not exist and --model is given."""
    images: Positional[Images] = ()
    """Image files, folders, or tables (CSV, Parquet) with the columns of `own` data sets."""
    model: Folder = None
    """Model folder of a new gallery; for an existing gallery, it must be the gallery's model."""
    embeddings: Annotated[Path | None, metavar("FILE.parquet")] = None
    """File of embeddings of the gallery's model, to add instead of images."""
    folder: OmitArgPrefixes[FolderOptions] = field(default_factory=FolderOptions)
    identity_from_folder: bool = False
    """Take the name of an image's folder as its identity."""
    thumbnails: bool = False
    """Store a small copy of each image in the gallery."""
    metadata: Pairs = ()
    """Metadata of all records, as NAME=VALUE; a value that is valid JSON (3, true) keeps its type."""
    device: str = "auto"
    """`cpu`, `cuda`, ... or `auto`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the matrix products; `auto` is measured on this machine."""


@dataclass(frozen=True)
class Search(Output):
    """Search the gallery for the records that are most similar to the queries."""

    gallery: Positional[URL]
    """The gallery."""
    images: Positional[Images] = ()
    """Query images; each is a separate query."""
    image: Annotated[tuple[str, ...], metavar("MODALITY=FILE ...")] = ()
    """Images of one sighting as the query, such as rgb=a.jpg tir=b.png, instead of separate images."""
    id: Ids = ()
    """Ids of records to search with instead of images."""
    same_object: bool = False
    """The query images show the same object: search with the mean of their embeddings."""
    query_camera: Name = None
    """Camera of the query images."""
    query_view: Name = None
    """View of the query images."""
    query_modality: Name = None
    """Modality of the query images: rgb (the default), nir or tir."""
    k: int = 10
    """Number of answers for each query."""
    group: Literal["identity", "tracklet"] | None = None
    """One answer for each identity or tracklet."""
    rerank: bool = False
    """Re-rank the nearest records by k-reciprocal neighbors."""
    prior: float = 0.5
    """Probability, before the comparison, that two records have the same identity; from 0 to 1."""
    camera: Names = ()
    """Search only records of these cameras."""
    identity: Names = ()
    """Search only records of these identities."""
    modality: Names = ()
    """Search only records of these modalities."""
    after: Seconds = None
    """Search only records of this time or later, in seconds."""
    before: Seconds = None
    """Search only records of an earlier time, in seconds."""
    metadata: Pairs = ()
    """Search only records with these values of metadata."""
    rank_strip: Annotated[Path | None, metavar("FILE.png")] = None
    """Write a picture of the queries and their answers to this PNG file."""
    device: str = "auto"
    """`cpu`, `cuda`, ... or `auto`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the matrix products; `auto` is measured on this machine."""


@dataclass(frozen=True)
class Remove(Output):
    """Remove records, or all records of an identity, with everything derived from them."""

    gallery: Positional[URL]
    """The gallery."""
    id: Ids = ()
    """Record ids to remove."""
    identity: Name = None
    """Remove all records of this identity."""


@dataclass(frozen=True)
class Assign(Output):
    """Assign records to an identity, to merge or split identities. `resight gallery undo` takes it back."""

    gallery: Positional[URL]
    """The gallery."""
    id: Positional[Ids] = ()
    """Record ids."""
    of: Name = None
    """Also assign all records of this identity, which merges it into the other."""
    identity: Name = None
    """The new identity. None: the records become unknown."""


@dataclass(frozen=True)
class Cluster(Output):
    """Group records into identities by clustering."""

    gallery: Positional[URL]
    """The gallery."""
    threshold: Annotated[float | None, metavar("SIMILARITY")] = None
    """Lowest mean similarity at which groups are joined. None: the calibrated threshold of the model."""
    neighbors: int = 20
    """Number of nearest neighbors of each record that are considered."""
    all: bool = False
    """Include records that have an identity, and compare the groups with the identities."""
    assign: Name = None
    """Assign the groups to NAME-1, NAME-2, ...; `resight gallery undo` takes back one group at a time."""


@dataclass(frozen=True)
class Undo(Output):
    """Undo the last assignment."""

    gallery: Positional[URL]
    """The gallery."""


@dataclass(frozen=True)
class Map(ProgressOutput):
    """Draw the embeddings of a gallery in two dimensions: near points are similar (UMAP)."""

    gallery: Positional[URL]
    """The gallery."""
    out: Annotated[Path, metavar("FILE.png")]
    """The drawing to write."""
    colour: Literal["identity", "camera"] = "identity"
    """What gives a point its colour."""
    max_records: int = 2000
    """Number of points; of a larger gallery, a sample is drawn."""
    seed: int = 0
    """Random seed of the layout."""


@dataclass(frozen=True)
class Stats(Output):
    """Count the records of a gallery."""

    gallery: Positional[URL]
    """The gallery."""


@dataclass(frozen=True)
class Verify(Output):
    """Read all records and report faults; with --identity, also check that nothing of the identity is left."""

    gallery: Positional[URL]
    """The gallery."""
    identity: Name = None
    """An identity that was removed, or that must not be in the gallery."""


@dataclass(frozen=True)
class Copy(Output):
    """Copy all records to another gallery, which is created if it does not exist."""

    gallery: Positional[URL]
    """The gallery."""
    to: Positional[URL]
    """The other gallery."""


@dataclass(frozen=True)
class Repair(Output):
    """Copy all records that can still be read from a corrupt gallery to a new one, and list the others."""

    gallery: Positional[URL]
    """The corrupt gallery, a folder; it is not changed."""
    to: Positional[URL]
    """A folder that does not exist or is empty."""


@dataclass(frozen=True)
class ToParquet(Output):
    """Write all records to one Parquet file, for other tools."""

    gallery: Positional[URL]
    """The gallery."""
    file: Positional[Annotated[Path, metavar("FILE.parquet")]]
    """The file to write."""


@dataclass(frozen=True)
class FromParquet(Output):
    """Add the records of a file of `resight gallery to-parquet`."""

    file: Positional[Annotated[Path, metavar("FILE.parquet")]]
    """The file."""
    gallery: Positional[URL]
    """The gallery, which is created if it does not exist."""
