"""Several data sets as one to learn from."""

import pyarrow as pa

from resight.data.sightings import SightingTable, Split

_APART = ("identity", "camera", "scene", "clothes", "tracklet")  # mean something within their own set alone


def join(splits: list[tuple[str, Split]]) -> Split:
    """Learns from all, and is tested on the first. Labels carry the name of their set: 0002 of one is not another's.

    Args:
        splits: at least one, each with its name.
    """
    name, first = splits[0]
    query = _apart(name, first.query)
    gallery = query if first.gallery is first.query else _apart(name, first.gallery)
    learned = pa.concat_tables([_apart(n, split.train).arrow for n, split in splits])
    notes = tuple(note for _, split in splits for note in split.notes)
    said = f"learns from {', '.join(split.name for _, split in splits)}; tested on {first.name}"
    return Split("+".join(n for n, _ in splits), SightingTable(learned), query, gallery, (*notes, said), first.protocol)


def _apart(name: str, table: SightingTable) -> SightingTable:
    arrow = table.arrow
    for column in _APART:
        labels = [None if label is None else f"{name}:{label}" for label in table.column(column)]
        arrow = arrow.set_column(arrow.column_names.index(column), column, pa.array(labels, pa.string()))
    return SightingTable(arrow)
