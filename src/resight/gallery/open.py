"""Create, open and copy galleries by URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from resight.config.sections import Precision
from resight.errors import ConfigError
from resight.gallery.engines.sqlite.salvage import RepairReport, repair
from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
from resight.gallery.gallery import Gallery
from resight.gallery.parquet import parquet_info
from resight.gallery.record import GalleryInfo
from resight.gallery.url import create_engine, exists, folder_of, open_engine
from resight.models.calibration import read_calibration
from resight.retrieval.calibration import Calibration

if TYPE_CHECKING:  # importing the model takes seconds, and most of these functions do without
    from resight.inference.embedder import Embedder


def create_gallery(url: str | Path, model: Embedder | str | Path) -> Gallery:
    """Create a gallery for the embeddings of a model.

    Args:
        url: `FOLDER`, `exact:FOLDER`, `qdrant://HOST:PORT/COLLECTION`, or `postgresql://USER@HOST/DATABASE?gallery=NAME`.
        model: an embedder, or a model folder, whose path is stored in the gallery.

    Raises:
        GalleryError: the gallery exists already, or its server cannot be reached.
        ConfigError: the URL has an unknown scheme, or the model's calibration is of other embeddings.
    """
    if isinstance(model, str | Path):
        from resight.inference.load import load

        embedder, folder = load(model), Path(model)
    else:
        embedder, folder = model, model.folder
    info = GalleryInfo(
        width=embedder.width,
        embedding_id=embedder.embedding_id,
        embedding=embedder.settings,
        model=None if folder is None else str(folder.resolve()),
    )
    calibration = embedder.calibration_for_use()  # may raise: before anything is created
    return Gallery(create_engine(str(url), info), calibration, embedder=embedder)


def open_gallery(
    url: str | Path,
    embedder: Embedder | None = None,
    prior: float = 0.5,
    device: str = "auto",
    precision: Precision = "auto",
) -> Gallery:
    """Open a gallery.

    Args:
        url: as in `create_gallery`.
        embedder: of the gallery's model; None loads the model from the gallery's model folder when it is first needed.
        prior: probability, before a comparison, that two records are of the same identity.
        device: where the gallery's model is loaded.
        precision: of the gallery's model.

    Raises:
        GalleryError: there is no gallery, it is of another model than the embedder, it is corrupt or in use, its server
            cannot be reached, or the model's calibration is of other embeddings.
        ConfigError: the URL has an unknown scheme.
    """
    engine = open_engine(str(url))
    try:
        if embedder is not None:
            engine.info.require(embedder.embedding_id, "the model gives")
            return Gallery(engine, embedder.calibration_for_use(), prior, embedder)
        return Gallery(engine, _calibration(engine.info), prior, device=device, precision=precision)
    except Exception:
        engine.close()
        raise


def copy_gallery(url: str | Path, to: str | Path) -> int:
    """Copy all records and the log to another gallery, which is created if it does not exist.

    From folder to new folder the database is copied as one state, also while other processes use it.

    Returns:
        the number of records.

    Raises:
        GalleryError: the other gallery is of another model.
    """
    with open_gallery(url) as gallery:
        folder = folder_of(str(to))
        if isinstance(gallery.engine, SQLiteEngine) and folder is not None and not exists(str(to)):
            return gallery.engine.backup(folder)
        engine = open_engine(str(to)) if exists(str(to)) else create_engine(str(to), gallery.info)
        with Gallery(engine) as other:
            return gallery.copy_to(other)


def gallery_from_parquet(file: str | Path, url: str | Path) -> int:
    """Add the records of a file that `Gallery.to_parquet` wrote to a gallery, which is created if it does not exist.

    Returns:
        the number of records.

    Raises:
        DatasetError: it is no such file.
        GalleryError: the gallery is of another model.
    """
    info = parquet_info(Path(file))
    engine = open_engine(str(url)) if exists(str(url)) else create_engine(str(url), info)
    with Gallery(engine) as gallery:
        return gallery.add_parquet(file)


def repair_gallery(url: str | Path, to: str | Path) -> RepairReport:
    """Copy what is whole of a corrupt gallery in a folder to a new folder; the corrupt one is not changed.

    Raises:
        GalleryError: there is no gallery in the folder, its description is corrupt, or the new folder is not empty.
        ConfigError: one of them is not a folder; servers repair their own storage.
    """
    folders = [folder_of(str(place)) for place in (url, to)]
    if folders[0] is None or folders[1] is None:
        raise ConfigError("only a gallery in a folder can be repaired, into a folder; servers repair their own storage")
    return repair(folders[0], folders[1])


def _calibration(info: GalleryInfo) -> Calibration | None:
    """The calibration in the gallery's model folder; None if that folder does not exist."""
    if info.model is None or not Path(info.model).is_dir():
        return None
    return read_calibration(Path(info.model))
