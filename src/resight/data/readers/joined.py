"""Join several data sets for training."""

import pyarrow as pa

from resight.data.modalities import aligned
from resight.data.sightings import SightingTable, Split

_LABELS = ("identity", "scene", "clothes", "tracklet")  # the same name in two data sets means different things


def join(splits: list[tuple[str, Split]]) -> Split:
    """Join the training sets of several data sets; query and gallery are those of the first.

    Labels get the name of their data set as a prefix, such as `market1501:0002`.

    Args:
        splits: at least one, each with its name.
    """
    name, first = splits[0]
    query = first.query.qualify(name, _LABELS)
    gallery = query if first.gallery is first.query else first.gallery.qualify(name, _LABELS)
    train = pa.concat_tables(aligned([split.train.qualify(n, _LABELS).arrow for n, split in splits]))
    notes = tuple(text for _, split in splits for text in split.notes)
    note = f"trained on {', '.join(split.name for _, split in splits)}; tested on {first.name}"
    return Split("+".join(n for n, _ in splits), SightingTable(train), query, gallery, (*notes, note), first.protocol)
