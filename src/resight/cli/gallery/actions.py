"""The actions of `resight gallery`: each is one call of a public function, and what it prints."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from resight.cli.gallery import options as kinds
from resight.cli.gallery.answers import print_answers
from resight.cli.parsing import print_json
from resight.errors import ConfigError, GalleryError

if TYPE_CHECKING:
    from resight.gallery.gallery import Gallery
    from resight.gallery.record import Value
    from resight.progress import Progress


def create(options: kinds.Create) -> None:
    """Create a gallery."""
    from resight.gallery.open import create_gallery
    from resight.gallery.url import shown_url

    with create_gallery(options.gallery, options.embedding.load(options.model)) as gallery:
        name = shown_url(options.gallery)
        print(f"{name}: a gallery for {options.model} (embeddings of {gallery.info.width} numbers)")


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
    print(f"{report.added} added, {report.already_present} already present, {len(report.corrupt)} corrupt and skipped")


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
    embedder = load(options.model, options.device, options.precision, settings.flip, settings.fusion, settings.unknown)
    return open_gallery(options.gallery, embedder)


def _ingest(gallery: Gallery, options: kinds.Add, progress: Progress) -> Any:
    values = _values(options.metadata)
    if options.embeddings is not None:
        progress.start("adding", None)
        return gallery.ingest_embeddings(options.embeddings, values, progress.update)
    from resight.data.readers.anything import read_images

    sightings = read_images(list(options.images), options.identity_from_folder, options.folder, progress.log)
    progress.log(gallery.embedder.description)
    progress.start("embedding", len(sightings))
    return gallery.ingest(sightings, options.thumbnails, values, progress.update)


def search(options: kinds.Search) -> None:
    """Search, and print the answers as tables or JSON."""
    from resight.gallery.answers import mean_query
    from resight.gallery.open import open_gallery
    from resight.gallery.record import Filter

    if bool(options.images) == bool(options.id):
        raise ConfigError("give either query images or --id of records to search with")
    if options.k < 1:
        raise ConfigError(f"--k must be 1 or more, not {options.k}")
    where = Filter(
        identity=options.identity, camera=options.camera, modality=options.modality, after=options.after,
        before=options.before, metadata=_values(options.metadata),
    )  # fmt: skip
    device, precision = options.device, options.precision
    with open_gallery(options.gallery, prior=options.prior, device=device, precision=precision) as gallery:
        if options.id:
            query: Any = gallery.vectors(options.id)
        else:
            query = gallery.embedder.embed(
                list(options.images), options.query_camera, options.query_view, options.query_modality
            )
        names = list(options.id or map(str, options.images))
        if options.same_object:
            query = mean_query(query)
            names = [" and ".join(names)]
        answers = gallery.search(query, options.k, where, options.group, options.rerank, exclude=options.id)
        available = gallery.stats().modalities if not any(answers) else {}
    print_answers(names, answers, options, where, list(available))


def remove(options: kinds.Remove) -> None:
    """Remove records, and print their number."""
    from resight.gallery.open import open_gallery

    if bool(options.id) == bool(options.identity):
        raise ConfigError("give either --id of records or --identity to remove")
    with open_gallery(options.gallery) as gallery:
        count = gallery.remove(options.id, options.identity)
    print(f"{count} records removed, with all traces" if count else "There was nothing to remove")


def assign(options: kinds.Assign) -> None:
    """Assign records, and print their number."""
    from resight.gallery.open import open_gallery

    with open_gallery(options.gallery) as gallery:
        count = gallery.assign(options.id, options.identity, options.of)
    to = options.identity or "unknown"
    print(f"{count} records assigned to {to}; resight gallery undo takes it back")


def undo(options: kinds.Undo) -> None:
    """Undo the last assignment, and print it."""
    from resight.gallery.open import open_gallery

    with open_gallery(options.gallery) as gallery:
        last = gallery.undo()
    print(f"taken back: {len(last.before)} records assigned to {last.identity or 'unknown'} at {last.at}")


def cluster(options: kinds.Cluster) -> None:
    """Cluster records, print the numbers of groups, and assign the groups if --assign is given."""
    from resight.gallery.open import open_gallery

    if options.all and options.assign:
        raise ConfigError(
            "--all compares groups with identities, and --assign needs records without one: leave one out"
        )
    with open_gallery(options.gallery) as gallery:
        clustering = gallery.cluster(options.threshold, options.neighbors, options.all)
        assigned = gallery.assign_clusters(clustering, options.assign) if options.assign else 0
        total = len(gallery)
    single = int((clustering.sizes == 1).sum())
    agreement = clustering.agreement if options.all else None
    if options.json:
        document: dict[str, Any] = {
            "records": len(clustering.records),
            "groups": len(clustering.sizes),
            "single": single,
        }
        print_json(document | ({} if agreement is None else {"agreement": asdict(agreement)}))
        return
    if not clustering.records:
        print(f"Nothing to cluster: all {total} records have an identity (--all includes them)")
        return
    print(f"{len(clustering.records)} records, {len(clustering.sizes)} groups, {single} of them with a single record")
    if agreement is not None:
        print(
            f"against the identities: pairwise F1 {agreement.f1:.3f} (precision {agreement.precision:.3f}, recall "
            f"{agreement.recall:.3f}), NMI {agreement.nmi:.3f}, {agreement.groups} groups for {agreement.labels} "
            "identities"
        )
    if assigned:
        print(f"assigned {options.assign}-1 to {options.assign}-{assigned}")


def stats(options: kinds.Stats) -> None:
    """Print counts of the gallery's records."""
    from resight.gallery.open import open_gallery

    with open_gallery(options.gallery) as gallery:
        counts = asdict(gallery.stats())
    if options.json:
        print_json(counts)
        return
    for name, value in counts.items():
        if isinstance(value, dict):
            value = [f"{label} {count}" for label, count in value.items()]  # pyright: ignore[reportUnknownVariableType]
        text = ", ".join(value) or "none" if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
        print(f"{name:20s}{text}")


def verify(options: kinds.Verify) -> None:
    """Verify a gallery; faults end with status 2."""
    from resight.gallery.open import open_gallery

    with open_gallery(options.gallery) as gallery:
        faults = gallery.verify(options.identity)
        count = len(gallery)
    if faults:
        raise GalleryError(f"{len(faults)} faults: " + "; ".join(faults[:20]))
    print(
        f"{count} records, no fault"
        + (f"; no record or log entry names {options.identity}" if options.identity else "")
    )


def copy(options: kinds.Copy) -> None:
    """Copy all records."""
    from resight.gallery.open import copy_gallery
    from resight.gallery.url import shown_url

    print(f"{copy_gallery(options.gallery, options.to)} records copied to {shown_url(options.to)}")


def repair(options: kinds.Repair) -> None:
    """Copy what is whole; anything lost ends with status 2."""
    from resight.gallery.open import repair_gallery

    report = repair_gallery(options.gallery, options.to)
    print(f"{report.copied} records copied to {options.to}")
    if report.lost:
        raise GalleryError(f"{len(report.lost)} not whole: " + "; ".join(report.lost[:20]))


def to_parquet(options: kinds.ToParquet) -> None:
    """Write a Parquet file."""
    from resight.gallery.open import open_gallery

    with open_gallery(options.gallery) as gallery:
        print(f"{gallery.to_parquet(options.file)} records written to {options.file}")


def from_parquet(options: kinds.FromParquet) -> None:
    """Add the records of a Parquet file."""
    from resight.gallery.open import gallery_from_parquet
    from resight.gallery.url import shown_url

    print(f"{gallery_from_parquet(options.file, options.gallery)} records added to {shown_url(options.gallery)}")


def _values(pairs: tuple[str, ...]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"metadata is NAME=VALUE, not {pair!r}")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        values[name] = value if isinstance(value, str | int | float | bool) else text
    return values
