"""`resight gallery search`: the search, and its answers as tables, JSON or a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from resight.cli.gallery import options as kinds
from resight.cli.gallery.metadata import parse_metadata
from resight.cli.output import note, row_table, show
from resight.errors import ConfigError
from resight.progress import percent

if TYPE_CHECKING:
    from resight.data.sightings import Sighting
    from resight.gallery.answers import Answer
    from resight.gallery.gallery import Gallery
    from resight.gallery.record import Filter


def search(options: kinds.Search) -> None:
    """Search, and print the answers as tables or JSON."""
    from resight.gallery.answers import common_modality, mean_query
    from resight.gallery.open import open_gallery
    from resight.gallery.record import Filter

    if sum(map(bool, (options.images, options.image, options.id))) != 1:
        raise ConfigError("give query images, or --image of one sighting, or --id of records to search with")
    if options.k < 1:
        raise ConfigError(f"--k must be 1 or more, not {options.k}")
    where = Filter(
        identity=options.identity, camera=options.camera, modality=options.modality, after=options.after,
        before=options.before, metadata=parse_metadata(options.metadata),
    )  # fmt: skip
    device, precision = options.device, options.precision
    with open_gallery(options.gallery, prior=options.prior, device=device, precision=precision) as gallery:
        query: Any = gallery.vectors(options.id) if options.id else _query_images(options)
        names = list(options.id) or [str(image) for image in options.images] or [" + ".join(options.image)]
        place = (options.query_camera, options.query_view)
        modality: Any = [gallery.record(i).modality for i in options.id] if options.id else options.query_modality
        if options.same_object:
            modalities = modality if options.id else gallery.embedder.modalities_of(query, modality)
            query = mean_query(query if options.id else gallery.embedder.embed(query, *place, modality))
            names, modality = [" and ".join(names)], common_modality(modalities)
        answers = gallery.search(
            query, options.k, where, options.group, options.rerank, *place, modality, exclude=options.id
        )
        available = [] if any(answers) else list(gallery.stats().modalities)
        queries = _queries(options, gallery) if options.rank_strip is not None else []
    print_answers(names, answers, options, where, available)
    if options.rank_strip is not None:
        from resight.report.answer_strips import answer_strip
        from resight.report.strips import save_picture

        save_picture(answer_strip(queries, answers, options.k), options.rank_strip)
        note(options, f"rank strip: {options.rank_strip}")


def _query_images(options: kinds.Search) -> list[Any]:
    """The query images; those of one sighting by modality."""
    if not options.image:
        return list(options.images)
    images: dict[str, str] = {}
    for pair in options.image:
        modality, equals, file = pair.partition("=")
        if not equals or not modality or not file:
            raise ConfigError(f"--image is MODALITY=FILE, such as tir=b.png, not {pair!r}")
        if modality in images:
            raise ConfigError(f"--image has the modality {modality} twice")
        images[modality] = file
    if options.query_modality is not None:
        raise ConfigError("--image names the modality of each file: leave --query-modality out")
    return [images]


def print_answers(
    names: Sequence[str], answers: Sequence[Sequence[Answer]], options: kinds.Search, where: Filter,
    available: Sequence[str],
) -> None:  # fmt: skip
    """Print the answers of each query as a table or, with --json, as JSON.

    Args:
        names: of the queries.
        answers: of each query.
        options: of the search.
        where: the filter of the search.
        available: the modalities in the gallery, if no query has an answer.
    """
    document = [{"query": n, "answers": [_row(a) for a in row]} for n, row in zip(names, answers, strict=True)]
    items = [item for n, row in zip(names, answers, strict=True) for item in _items(n, row, options, where, available)]
    show(options, {"queries": document}, *items)


def _queries(options: kinds.Search, gallery: Gallery) -> list[Sighting]:
    """The query of each row of the rank strip; of the images of one object, the first."""
    from resight.data.sightings import Sighting
    from resight.report.answer_strips import sighting_of

    if options.id:
        queries = [sighting_of(gallery.record(record_id)) for record_id in options.id]
    elif options.image:
        images = {modality: Path(file) for modality, file in _query_images(options)[0].items()}
        queries = [Sighting(images, camera=options.query_camera)]
    else:
        modality = options.query_modality or "rgb"
        queries = [Sighting({modality: image}, camera=options.query_camera) for image in options.images]
    return queries[:1] if options.same_object else queries


def _items(
    name: str, answers: Sequence[Answer], options: kinds.Search, where: Filter, available: Sequence[str]
) -> list[str | Table]:
    """The answers of one query as a table, and what there is to say about them."""
    if not answers:
        return [f"{name}: {_reason(where, available)}"]
    rows = [_cells(_row(answer)) for answer in answers]
    columns = [column for column in rows[0] if any(row[column] not in (None, "") for row in rows)]
    columns = [column for column in columns if column != "members" or options.group]
    items: list[str | Table] = [row_table(name, [{column: row[column] for column in columns} for row in rows])]
    if all(answer.known is False for answer in answers):
        items.append("No match above the threshold")
    return items


def _reason(where: Filter, available: Sequence[str]) -> str:
    """Why a query has no answer."""
    conditions = ", ".join(
        f"{name}: {_condition(value)}" for name, value in asdict(where).items() if value not in ((), None, {})
    )
    if not conditions:
        return "the gallery has no other record"
    hint = f"; the gallery has {', '.join(available)}" if where.modality and available else ""
    return f"No record matches the filter ({conditions}{hint})"


def _condition(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={item}" for name, item in value.items())  # pyright: ignore[reportUnknownVariableType]
    return " or ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g} s"  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table: None or an empty text where nothing is known."""
    probability, time = row["probability"], row["time"]
    return row | {
        "similarity": f"{row['similarity']:.4f}",
        "probability": None if probability is None else percent(probability),
        "known": None if row["known"] is None else "yes" if row["known"] else "no",
        "time": None if time is None else f"{time:.2f} s",
        "images": " ".join(row["images"].values()),
        "metadata": " ".join(f"{name}={value}" for name, value in row["metadata"].items()),
    }


def _row(answer: Answer) -> dict[str, Any]:
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
        "images": dict(record.images),
        "metadata": dict(record.metadata),
        "id": record.id,
        "members": answer.members,
    }
