"""The demo as a service: its model, its pictures in a gallery, and the page on this machine."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from resight.data.catalog import read_dataset
from resight.errors import EvaluationError, require_extra
from resight.evaluation.calibrate import calibrate
from resight.gallery.open import create_gallery, open_gallery
from resight.gallery.record import Record
from resight.inference.embedder import Embedder
from resight.inference.load import load
from resight.progress import Progress
from resight.report.demo import run_demo
from resight.service.server import serve
from resight.service.settings import ServiceSettings, settings_from_environment

_FALSE_MATCH_RATE: Final = 1e-2  # the test set is too small for a lower one
_UNASSIGNED: Final = 4  # of so many identities, the sightings of one get no identity: there is something to confirm
_SHOT_SECONDS: Final = 60.0  # between the sightings of one camera
_FIRST_TIME: Final = 1_767_258_000.0  # 2026-01-01 09:00 UTC


def prepare_demo(out: Path, seed: int = 0, epochs: int | None = None) -> ServiceSettings:
    """Train the demo's model, calibrate it, and put the synthetic test set into a gallery; reuse what exists.

    Args:
        out: folder of the demo: the images, the run, and the gallery `gallery`.
        seed: of the images and of training.
        epochs: of training; None for the recipe's number.

    Returns:
        the settings of a service over the gallery, on this machine alone.

    Raises:
        ConfigError: `out` exists and has no trained model, or the extra `service` is not installed.
        StorageError: `out` cannot be written.
    """
    require_extra("fastapi", "service")
    model = out / "run" / "best"
    with Progress() as progress:
        if not (model / "config.json").exists():
            run_demo(out, seed, epochs, progress)
        if not (out / "gallery").exists():
            split = read_dataset("synthetic", out / "pictures")
            progress.start("calibrating", split.tested)
            try:
                calibrate(load(model), split, _FALSE_MATCH_RATE, progress=progress.update)
            except EvaluationError:
                progress.log("the test set has too few pairs for a calibration: results have no probability")
            _ingest(out, load(model), progress)
    return settings_from_environment({}).changed(model=model, gallery=str(out / "gallery"))


def serve_demo(out: Path, seed: int = 0, epochs: int | None = None, port: int = 8000) -> None:
    """Prepare the demo, print the page's address, and serve it until Ctrl+C; as `prepare_demo`.

    Raises:
        StorageError: the port is in use.
    """
    settings = prepare_demo(out, seed, epochs).changed(port=port)
    text = f"the page: http://127.0.0.1:{port}/ (Ctrl+C ends it; try a picture of {out / 'pictures'})"
    Console(highlight=False, markup=False, emoji=False).print(text, soft_wrap=True)
    serve(settings)


def _ingest(out: Path, embedder: Embedder, progress: Progress) -> None:
    """Make the gallery; the synthetic set has no times, so its sightings get some of one morning."""
    sightings = read_dataset("synthetic", out / "pictures").gallery
    with create_gallery(out / "gallery", embedder) as gallery:
        progress.start("ingesting", len(sightings))
        gallery.ingest(sightings, thumbnails=True, progress=progress.update)
    with open_gallery(out / "gallery", embedder) as gallery:
        gallery.add(_with_times(list(gallery.engine.scan())))


def _with_times(records: list[Record]) -> list[Record]:
    """The records with a time each, and every fourth identity made unknown."""
    identities = sorted({record.identity for record in records if record.identity is not None})
    unknown = set(identities[::_UNASSIGNED])
    return [
        replace(
            record,
            time=_FIRST_TIME + _SHOT_SECONDS * (37 * number % (3 * len(records))),
            identity=None if record.identity in unknown else record.identity,
        )
        for number, record in enumerate(records)
    ]
