"""Galleries by URL, with their model's calibration."""

from pathlib import Path

from resight.config.sections import Precision
from resight.gallery.gallery import Gallery
from resight.gallery.record import GalleryInfo
from resight.gallery.url import create_engine, exists, open_engine
from resight.inference.embedder import Embedder, load
from resight.models.checkpoint import read_calibration
from resight.retrieval.calibration import Calibration


def create_gallery(url: str | Path, model: Embedder | str | Path) -> Gallery:
    """Make a gallery for the embeddings of a model.

    Args:
        url: `FOLDER`, `exact:FOLDER`, `qdrant://HOST:PORT/COLLECTION`, or `postgresql://USER@HOST/DATABASE?gallery=NAME`.
        model: an embedder, or a model folder, which the gallery then names.

    Raises:
        GalleryError: there is something already, or the server cannot be reached.
        ConfigError: there is no engine of that kind.
    """
    embedder = model if isinstance(model, Embedder) else load(model)
    folder = embedder.folder if isinstance(model, Embedder) else Path(model)
    info = GalleryInfo(
        width=embedder.width,
        embedding_id=embedder.embedding_id,
        embedding=embedder.settings,
        model=None if folder is None else str(folder.resolve()),
    )
    return Gallery(create_engine(str(url), info), embedder.calibration_for_use(), embedder=embedder)


def open_gallery(
    url: str | Path,
    embedder: Embedder | None = None,
    prior: float = 0.5,
    device: str = "auto",
    precision: Precision = "auto",
) -> Gallery:
    """Open a gallery.

    Args:
        url: as `create_gallery` takes it.
        embedder: of its model; None loads the model that the gallery names when it is first needed.
        prior: probability, before a comparison, that two records are of one identity.
        device: where the gallery's model is loaded.
        precision: of the gallery's model.

    Raises:
        GalleryError: there is no gallery, it is of another model than the embedder, it is corrupt or in use, or its
            server cannot be reached; or the model's calibration is of other embeddings.
        ConfigError: there is no engine of that kind.
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
    """Copy all records and the log to another gallery, which is made if it does not exist; returns how many records.

    Raises:
        GalleryError: the other gallery is of another model.
    """
    with open_gallery(url) as gallery:
        engine = open_engine(str(to)) if exists(str(to)) else create_engine(str(to), gallery.info)
        with Gallery(engine) as other:
            return gallery.copy_to(other)


def _calibration(info: GalleryInfo) -> Calibration | None:
    """Of the model that the gallery names, where its folder is still there."""
    if info.model is None or not Path(info.model).is_dir():
        return None
    return read_calibration(Path(info.model))
