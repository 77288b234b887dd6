"""From tables of sightings to what the rules of ranking look at."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from resight.data.modalities import LABELS, ordered
from resight.data.sightings import SightingTable
from resight.retrieval.labels import Labels

pc: Any = pyarrow.compute  # makes its functions when it is imported, and types none


def encode_labels(query: SightingTable, gallery: SightingTable) -> tuple[Labels, Labels]:
    """The labels of both tables as numbers that mean the same in both, in the order of the labels' names."""
    columns = {name: [t.arrow.column(name) for t in (query, gallery)] for name in LABELS}
    modalities = ordered({*query.modalities, *gallery.modalities})
    columns["picture"] = [_files(t, modalities) for t in (query, gallery)]
    columns["modality"] = [_modalities(t, modalities) for t in (query, gallery)]
    numbers, names = {}, {}
    for column, (query_column, gallery_column) in columns.items():
        both = (
            pa.chunked_array([*query_column.chunks, *gallery_column.chunks], pa.string())
            .combine_chunks()
            .dictionary_encode()
        )
        order = pc.sort_indices(both.dictionary).to_numpy()
        names[column] = both.dictionary.take(order).to_pylist()
        place = np.append(np.argsort(order), -1)  # -1, at the end, is what is not known
        numbers[column] = place[both.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    cut = len(query)
    return tuple(  # pyright: ignore[reportReturnType]
        Labels(len(t), {c: n[part] for c, n in numbers.items()}, names, t.arrow.column("time").to_numpy())
        for t, part in ((query, slice(0, cut)), (gallery, slice(cut, None)))
    )


def _files(table: SightingTable, modalities: tuple[str, ...]) -> Any:
    paths = [table.files(m) for m in modalities]
    return pc.binary_join_element_wise(*paths, "|", null_handling="replace", null_replacement="")


def _modalities(table: SightingTable, modalities: tuple[str, ...]) -> Any:
    """`rgb`, `nir`, `tir`, or several joined by `+`."""
    names_present = [pc.if_else(pc.is_valid(table.files(m)), m, None) for m in modalities]
    return pc.binary_join_element_wise(*names_present, "+", null_handling="skip")
