"""Printing of the answers of `resight gallery search`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from resight.cli.gallery import options as kinds
from resight.cli.parsing import print_json, print_rows

if TYPE_CHECKING:
    from resight.gallery.answers import Answer
    from resight.gallery.record import Filter


def print_answers(
    names: list[str], answers: list[list[Answer]], options: kinds.Search, where: Filter, available: list[str]
) -> None:
    """Print the answers of each query as a table or, with --json, as JSON.

    Args:
        names: of the queries.
        answers: of each query.
        options: of the search.
        where: the filter of the search.
        available: the modalities in the gallery, if no query has an answer.
    """
    if options.json:
        print_json([{"query": n, "answers": [_row(a) for a in row]} for n, row in zip(names, answers, strict=True)])
        return
    for name, row in zip(names, answers, strict=True):
        rows = [_row(answer) for answer in row]
        for values in rows:
            values["time"] = None if values["time"] is None else f"{values['time']:.2f}"  # seconds
            values["images"] = " ".join(values["images"].values())
        columns = [column for column in rows[0] if any(r[column] not in (None, {}, "") for r in rows)] if rows else []
        columns = [column for column in columns if column != "members" or options.group]
        print_rows(name, [{column: "" if r[column] is None else r[column] for column in columns} for r in rows])
        if not row:
            conditions = ", ".join(f"{n}: {v}" for n, v in asdict(where).items() if v not in ((), None, {}))
            other_modalities = where.modality and available
            hint = f"; the gallery has the modalities {', '.join(available)}" if other_modalities else ""
            print(f"No record matches the filter ({conditions}{hint})" if conditions else "The gallery is empty")
        elif all(answer.known is False for answer in row):
            print("No match above the threshold")


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
