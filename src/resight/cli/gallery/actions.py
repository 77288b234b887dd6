"""What each action of `resight gallery` does."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resight.cli.gallery.options import Add, Create, Export, Name, Only, Remove, Search, Verify
from resight.cli.parsing import print_rows
from resight.errors import ConfigError, GalleryError

if TYPE_CHECKING:
    from resight.config.sections import Precision
    from resight.gallery.gallery import Answer, Gallery
    from resight.gallery.ingest import IngestReport
    from resight.gallery.record import Filter, Value
    from resight.inference.embedder import Embedder
    from resight.progress import Progress


def create(options: Create) -> None:
    """Makes a gallery."""
    from resight.gallery.url import create_engine
    from resight.inference.embedder import load

    model = load(options.model, "cpu", "fp32")
    create_engine(options.gallery, {**model.about, "model": str(options.model.resolve())}).close()
    print(f"{options.gallery}: a gallery for {options.model} (embeddings of {model.width} numbers)")


def add(options: Add) -> None:
    """Embeds and keeps, or keeps what is embedded, and says what became of each."""
    from resight.progress import Progress

    if bool(options.images) == (options.embeddings is not None):
        raise ConfigError("say what to add: picture files, folders or tables, or --embeddings FILE, one of the two")
    with Progress() as progress:
        gallery, kept = _add_embeddings(options, progress) if options.embeddings else _add_pictures(options, progress)
        for reason in kept.corrupt:
            progress.log(f"skipped: {reason}")
    print(f"{kept.added} added, {kept.there} were there already, {len(kept.corrupt)} could not be decoded")
    gallery.engine.close()


def _add_pictures(options: Add, progress: "Progress") -> "tuple[Gallery, IngestReport]":
    from resight.data.readers.anything import read_anything
    from resight.gallery.ingest import keep

    sightings = read_anything(options.images, options.identity_from_folder)
    gallery, embedder = _with_model(options.gallery, options.device, options.precision)
    progress.log(embedder.description)
    progress.start("embedding", len(sightings))
    return gallery, keep(gallery, embedder, sightings, options.thumbnails, _values(options.metadata), progress.update)


def _add_embeddings(options: Add, progress: "Progress") -> "tuple[Gallery, IngestReport]":
    from resight.gallery.ingest import ingest_embeddings

    if options.embeddings is None or options.thumbnails or options.identity_from_folder:
        raise ConfigError("--embeddings have no pictures: --thumbnails and --identity-from-folder do not go with them")
    gallery = open_gallery(options.gallery)
    progress.start("adding", None)
    return gallery, ingest_embeddings(gallery, options.embeddings, _values(options.metadata), progress.update)


def search(options: Search) -> None:
    """Prints answers, as tables or JSON."""
    import numpy as np

    from resight.gallery.gallery import as_one
    from resight.gallery.record import Filter

    if bool(options.images) == bool(options.id):
        raise ConfigError("say what to search for: picture files, or --id of records, one of the two")
    where = Filter(
        identity=options.identity,
        camera=options.camera,
        modality=options.modality,
        after=options.after,
        before=options.before,
        metadata=_values(options.metadata),
    )
    if options.id:
        gallery = open_gallery(options.gallery)
        names, vectors = list(options.id), np.stack([gallery.record(i).vector for i in options.id])
    else:
        gallery, embedder = _with_model(options.gallery, options.device, options.precision)
        names, vectors = list(map(str, options.images)), embedder.embed(options.images)
    gallery.prior = options.prior
    if options.together:
        names, vectors = [" and ".join(names)], as_one(vectors)
    answers = gallery.search(vectors, options.k + bool(options.id), where, options.group, options.rerank)
    if options.id:
        answers = [[a for a in found if a.record.id not in options.id][: options.k] for found in answers]
    _show(names, answers, options, where)
    gallery.engine.close()


def _show(names: list[str], answers: "list[list[Answer]]", options: Search, where: "Filter") -> None:
    if options.json:
        print(
            json.dumps([{"asked": n, "answers": [_plain(a) for a in f]} for n, f in zip(names, answers, strict=True)])
        )
        return
    for name, found in zip(names, answers, strict=True):
        rows = [_plain(answer) for answer in found]
        for row in rows:
            row["time"] = None if row["time"] is None else f"{row['time']:.2f}"  # seconds, however many they are
        eval_model = [key for key in rows[0] if any(row[key] not in (None, {}) for row in rows)] if rows else []
        eval_model = [key for key in eval_model if key != "members" or options.group]
        print_rows(name, [{key: "" if row[key] is None else row[key] for key in eval_model} for row in rows])
        if not found:
            print("no record is meant by that filter" if where != type(where)() else "the gallery is empty")
        elif all(answer.known is False for answer in found):
            print("nobody known: no answer reaches the model's threshold")


def _plain(answer: "Answer") -> dict[str, Any]:
    record = answer.record
    return {
        "similarity": round(answer.similarity, 4),
        "probability": None if answer.probability is None else round(answer.probability, 4),
        "known": answer.known,
        "identity": record.identity,
        "camera": record.camera,
        "time": record.time,
        "modality": record.modality,
        "tracklet": record.tracklet,
        "picture": record.picture,
        "metadata": dict(record.metadata),
        "id": record.id,
        "members": answer.members,
    }


def remove(options: Remove) -> None:
    """Removes, and says how many there were."""
    if bool(options.id) == bool(options.identity):
        raise ConfigError("say what to remove: --id of records, or --identity, one of the two")
    gallery = open_gallery(options.gallery)
    count = gallery.remove(options.id, options.identity)
    print(f"{count} records removed, with every trace" if count else "there was nothing to remove")
    gallery.engine.close()


def name(options: Name) -> None:
    """Names, and says how many there were."""
    from resight.gallery.record import Filter

    gallery = open_gallery(options.gallery)
    ids = list(options.id)
    if options.of is not None:
        ids += [record.id for record in gallery.engine.scan(Filter(identity=(options.of,)))]
    if not ids:
        raise ConfigError("say which records: their ids, or --of an identity that has some")
    gallery.name(ids, options.identity)
    print(f"{len(ids)} records are of {options.identity or 'nobody known'} now; resight gallery undo takes it back")
    gallery.engine.close()


def undo(options: Only) -> None:
    """Takes the last naming back."""
    gallery = open_gallery(options.gallery)
    last = gallery.undo()
    print(f"taken back: {len(last['before'])} records named {last['identity']!r} at {last['at']}")
    gallery.engine.close()


def stats(options: Only) -> None:
    """Prints what is in it."""
    from resight.gallery import maintenance as maintenance

    gallery = open_gallery(options.gallery)
    for name, value in maintenance.stats(gallery.engine).items():
        if isinstance(value, dict):
            value = ", ".join(f"{label} {count}" for label, count in value.items()) or "none"
        print(f"{name:20s}{', '.join(value) or 'none' if isinstance(value, list) else value}")
    gallery.engine.close()


def verify(options: Verify) -> None:
    """Reads everything; a fault ends with status 2."""
    from resight.gallery import maintenance as maintenance

    gallery = open_gallery(options.gallery)
    faults = maintenance.verify(gallery.engine, options.identity)
    count = gallery.engine.count()
    gallery.engine.close()
    if faults:
        raise GalleryError(f"{len(faults)} faults: " + "; ".join(faults[:20]))
    print(f"{count} records, all whole" + (f"; nothing is left of {options.identity}" if options.identity else ""))


def export(options: Export) -> None:
    """Copies all records."""
    from resight.gallery import maintenance as maintenance
    from resight.gallery.url import create_engine, exists, open_engine

    gallery = open_gallery(options.gallery)
    about = {name: value for name, value in gallery.engine.about.items() if name != "format"}
    other = open_engine(options.to) if exists(options.to) else create_engine(options.to, about)
    print(f"{maintenance.copy(gallery.engine, other)} records copied to {options.to}")
    other.close()
    gallery.engine.close()


def _with_model(url: str, device: str, precision: "Precision") -> "tuple[Gallery, Embedder]":
    """A gallery with its own model."""
    from resight.inference.embedder import load

    gallery = open_gallery(url)
    embedder = load(gallery.engine.about["model"], device, precision)
    gallery.require(embedder.fingerprint)
    gallery.calibration = embedder.calibration
    return gallery, embedder


def open_gallery(url: str) -> "Gallery":
    """A gallery with its model's calibration, where the model is still there."""
    from resight.gallery.gallery import Gallery
    from resight.gallery.url import open_engine
    from resight.models.checkpoint import read_calibration

    engine = open_engine(url)
    model = Path(engine.about.get("model", ""))
    return Gallery(engine, read_calibration(model) if model.is_dir() else None)


def _values(pairs: tuple[str, ...]) -> "dict[str, Value]":
    found: dict[str, Value] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"metadata is NAME=VALUE, not {pair!r}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found[name] = value if isinstance(value, str | int | float | bool) else text
    return found
