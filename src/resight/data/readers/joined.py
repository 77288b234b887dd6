"""Several data sets as one to learn from."""

import pyarrow as pa

from resight.data.sightings import SightingTable, Split

_OWN = ("identity", "scene", "clothes", "tracklet")  # mean something within their own set alone


def join(splits: list[tuple[str, Split]]) -> Split:
    """Learns from all, and is tested on the first. Labels carry the name of their set: 0002 of one is not another's.

    Args:
        splits: at least one, each with its name.
    """
    name, first = splits[0]
    query = first.query.qualify(name, _OWN)
    gallery = query if first.gallery is first.query else first.gallery.qualify(name, _OWN)
    learned = pa.concat_tables([split.train.qualify(n, _OWN).arrow for n, split in splits])
    notes = tuple(note for _, split in splits for note in split.notes)
    said = f"learns from {', '.join(split.name for _, split in splits)}; tested on {first.name}"
    return Split("+".join(n for n, _ in splits), SightingTable(learned), query, gallery, (*notes, said), first.protocol)
