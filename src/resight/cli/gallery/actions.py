"""The actions of `resight gallery`: each is one call of a public function, and what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resight.cli.gallery import options as kinds
from resight.cli.gallery.metadata import parse_metadata
from resight.cli.output import show
from resight.errors import ConfigError, GalleryError
from resight.progress import counted

if TYPE_CHECKING:
    from resight.gallery.gallery import Gallery
    from resight.progress import Progress


def create(options: kinds.Create) -> None:
    """Create a gallery."""
    from resight.gallery.open import create_gallery
    from resight.gallery.url import shown_url

    with create_gallery(options.gallery, options.embedding.load(options.model)) as gallery:
        url, info = shown_url(options.gallery), gallery.info
    show(
        options,
        {"gallery": url, "model": options.model, "width": info.width, "embedding_id": info.embedding_id},
        f"{url}: a gallery for {options.model} (embeddings of {info.width} numbers)",
    )


def add(options: kinds.Add) -> None:
    """Add images or embeddings, and print the counts."""
    from resight.progress import Progress

    if bool(options.images) == (options.embeddings is not None):
        raise ConfigError("give either images, folders or tables to add, or --embeddings FILE")
    if options.embeddings is not None and (options.thumbnails or options.identity_from_folder):
        raise ConfigError("--embeddings has no images: leave --thumbnails and --identity-from-folder out")
    if options.embeddings is not None and options.folder.changed_options:
        raise ConfigError(f"--embeddings has no images: leave {options.folder.changed_options[0]} out")
    with Progress(options.quiet) as progress, _opened_for_adding(options) as gallery:
        report = _ingest(gallery, options, progress)
        for reason in report.corrupt:
            progress.log(f"skipped: {reason}")
        for note in report.notes:
            progress.log(note)
    show(
        options,
        report,
        f"{report.added:,} added, {report.already_present:,} already present, {len(report.corrupt):,} corrupt and "
        "skipped",
    )


def _opened_for_adding(options: kinds.Add) -> Gallery:
    from resight.gallery.open import create_gallery, open_gallery
    from resight.gallery.url import exists
    from resight.inference.load import load

    if options.model is not None and not exists(options.gallery):
        return create_gallery(options.gallery, load(options.model, options.device, options.precision))
    if options.model is None or options.embeddings is not None:
        return open_gallery(options.gallery, device=options.device, precision=options.precision)
    with open_gallery(options.gallery) as gallery:
        settings = gallery.info.embedding
    choices = (settings.flip, settings.fusion, settings.unknown)
    embedder = load(options.model, options.device, options.precision, *choices, scaling=settings.scaling)
    return open_gallery(options.gallery, embedder)


def _ingest(gallery: Gallery, options: kinds.Add, progress: Progress) -> Any:
    values = parse_metadata(options.metadata)
    if options.embeddings is not None:
        progress.start("adding", None)
        return gallery.ingest_embeddings(options.embeddings, values, progress.update)
    from resight.data.readers.anything import read_images

    sightings = read_images(list(options.images), options.identity_from_folder, options.folder, progress.log)
    progress.log(gallery.embedder.description)
    progress.log(counted(len(sightings), "sighting"))
    progress.start("embedding", len(sightings))
    return gallery.ingest(sightings, options.thumbnails, values, progress.update)


def remove(options: kinds.Remove) -> None:
    """Remove records, and print their number."""
    from resight.gallery.open import open_gallery

    if bool(options.id) == bool(options.identity):
        raise ConfigError("give either --id of records or --identity to remove")
    with open_gallery(options.gallery) as gallery:
        count = gallery.remove(options.id, options.identity)
    show(
        options,
        {"removed": count},
        f"{counted(count, 'record')} removed, with all traces" if count else "No record matches: nothing is removed",
    )


def assign(options: kinds.Assign) -> None:
    """Assign records, and print their number."""
    from resight.gallery.open import open_gallery
    from resight.gallery.url import shown_url

    with open_gallery(options.gallery) as gallery:
        count = gallery.assign(options.id, options.identity, options.of)
    show(
        options,
        {"assigned": count, "identity": options.identity},
        f"{counted(count, 'record')} {_assigned_to(options.identity)}; undo with: resight gallery undo "
        f"{shown_url(options.gallery)}",
    )


def undo(options: kinds.Undo) -> None:
    """Undo the last assignment, and print it."""
    from resight.gallery.open import open_gallery

    with open_gallery(options.gallery) as gallery:
        last = gallery.undo()
    count = len(last.before)
    show(
        options,
        {"undone": count, "identity": last.identity, "at": last.at},
        f"undone: {counted(count, 'record')} {_assigned_to(last.identity)} at {last.at}; each has its earlier identity",
    )


def _assigned_to(identity: str | None) -> str:
    return "made unknown" if identity is None else f"assigned to {identity}"


def verify(options: kinds.Verify) -> None:
    """Verify a gallery; faults end with status 2."""
    from resight.gallery.open import open_gallery

    with open_gallery(options.gallery) as gallery:
        faults = gallery.verify(options.identity)
        count = len(gallery)
    never = options.identity is not None and not faults
    show(
        options,
        {"records": count, "faults": faults},
        *([] if faults else [f"{counted(count, 'record')}, no fault"]),
        *([f"no record and no log entry has the identity {options.identity!r}"] if never else []),
    )
    if faults:
        raise GalleryError(f"{counted(len(faults), 'fault')}: {'; '.join(faults[:20])}")


def copy(options: kinds.Copy) -> None:
    """Copy all records."""
    from resight.gallery.open import copy_gallery
    from resight.gallery.url import shown_url

    count = copy_gallery(options.gallery, options.to)
    show(
        options,
        {"copied": count, "gallery": shown_url(options.to)},
        f"{counted(count, 'record')} copied to {shown_url(options.to)}",
    )


def repair(options: kinds.Repair) -> None:
    """Copy what is whole; anything lost ends with status 2."""
    from resight.gallery.open import repair_gallery

    report = repair_gallery(options.gallery, options.to)
    show(options, report, f"{counted(report.copied, 'record')} copied to {options.to}")
    if report.lost:
        raise GalleryError(f"{counted(len(report.lost), 'item')} lost: {'; '.join(report.lost[:20])}")


def to_parquet(options: kinds.ToParquet) -> None:
    """Write a Parquet file."""
    from resight.gallery.open import open_gallery

    with open_gallery(options.gallery) as gallery:
        count = gallery.to_parquet(options.file)
    show(
        options,
        {"written": count, "file": options.file},
        f"{counted(count, 'record')} written to {options.file}",
    )


def from_parquet(options: kinds.FromParquet) -> None:
    """Add the records of a Parquet file."""
    from resight.gallery.open import gallery_from_parquet
    from resight.gallery.url import shown_url

    count = gallery_from_parquet(options.file, options.gallery)
    url = shown_url(options.gallery)
    show(options, {"added": count, "gallery": url}, f"{counted(count, 'record')} added to {url}")
