"""Batches of rows, from files and from packed images, against a loop over files; names of the catalog."""

import os

import numpy as np
import pytest
import torch
from conftest import picture

from resight.data import catalog, loader
from resight.data.catalog import CATALOG, camera_owner, protocol_of, read_dataset, require_known
from resight.data.image import decode, resize
from resight.data.loader import Batch, Loader, _positions
from resight.data.sightings import Sighting, SightingTable
from resight.data.vocabulary import Vocabulary
from resight.errors import ConfigError
from resight.retrieval.protocols import PROTOCOLS

KNOWN = Vocabulary(("a", "b"), ("c1", "c2"), ("left",), ("rgb", "tir"))


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIGHT_CACHE", str(tmp_path / "cache"))
    files = [picture(tmp_path / f"{n}.png", n, size=(20 + 4 * n, 44)) for n in range(8)]
    return SightingTable.of(
        [
            Sighting({"rgb": files[0], "tir": files[1]}, "a", "c1", "left"),
            Sighting({"tir": files[2]}, "b", "c2", "right"),
            Sighting({"rgb": files[3]}, "x", None, None),
            Sighting({"rgb": files[4], "tir": files[5]}, None, "c2", "left"),
            Sighting({"rgb": files[6], "nir": files[7]}, "a", "c9", "left"),
        ]
    )


def check(batch, table, rows, size):
    assert batch.identity.tolist() == [[0, 1, -1, -1, 0][row] for row in rows]
    assert batch.camera.tolist() == [[0, 1, -1, 1, -1][row] for row in rows]
    assert batch.view.tolist() == [[0, -1, -1, 0, 0][row] for row in rows]
    assert batch.images.shape == (len(rows), 2, 3, *size)
    for n, row in enumerate(rows):
        for m, modality in enumerate(("rgb", "tir")):
            path = table[row].images.get(modality)
            assert bool(batch.present[n, m]) == (path is not None)
            expected = (
                torch.zeros(3, *size, dtype=torch.uint8) if path is None else resize(decode(path), size, "bicubic")
            )
            assert torch.equal(batch.images[n, m], expected)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_batches_in_their_order_by_a_loop(table, packed, count):
    """Fewer, as many and more than are decoded ahead."""
    made = Loader(table, KNOWN, (24, 16), "bicubic")
    assert made.files == [
        path for sighting in table for modality in ("rgb", "tir") if (path := sighting.images.get(modality))
    ]
    if packed:
        made.pack()
    rng = np.random.default_rng(count)
    rows = [rng.integers(0, 5, rng.integers(1, 5)).tolist() for _ in range(count)]
    batches = list(made.batches(iter(rows)))
    assert len(batches) == count
    for batch, chosen in zip(batches, rows, strict=True):
        check(batch, table, chosen, (24, 16))


def test_three_batches_are_decoded_ahead(table, monkeypatch):
    made, taken = Loader(table, KNOWN, (24, 16), "bicubic"), []

    def rows():
        for n in range(9):
            taken.append(n)
            yield [n % 5]

    assert loader._AHEAD == 3
    batches = made.batches(rows())
    next(batches)
    assert len(taken) == 3
    next(batches)
    assert len(taken) == 4
    batches.close()


def test_side_information_of_the_images_that_are_present():
    present = torch.tensor([[True, False], [True, True], [False, True]])
    number = torch.arange(3)
    batch = Batch(torch.zeros(3, 2, 3, 1, 1), present, number, number + 10, number + 20)
    assert {kind: labels.tolist() for kind, labels in batch.side_info().items()} == {
        "camera": [10, 11, 11, 12], "view": [20, 21, 21, 22], "modality": [0, 0, 1, 1],
    }  # fmt: skip
    moved = batch.to(torch.device("cpu"))
    assert moved.side_info()["camera"].tolist() == [10, 11, 11, 12]


def test_positions_count_the_files_before():
    assert _positions([["a", None], ["b", "c"], [None, "d"]]).tolist() == [[0, -1], [1, 2], [-1, 3]]


def test_protocols_of_data_sets():
    expected = {"msvr310": "msvr310", "sysu-mm01": "sysu-all", "market1501": "market", "own": "market"}
    assert {name: protocol_of(name) for name in expected} == expected
    for name in CATALOG:
        assert protocol_of(name) in PROTOCOLS
        if name.startswith("regdb"):
            assert protocol_of(name) == "regdb-visible-thermal"
        if name.startswith("vehicleid"):
            assert protocol_of(name) == "vehicleid"
    assert sum(name.startswith("regdb") for name in CATALOG) >= 10


def test_cameras_are_named_after_their_set():
    assert (camera_owner("own"), camera_owner("market1501"), camera_owner("occluded-duke")) == (
        None, "market1501", "dukemtmc",
    )  # fmt: skip
    for function in (camera_owner, require_known):
        with pytest.raises(ConfigError, match="no data set named 'market1502'"):
            function("market1502")
    assert require_known("market1501+own") == ["market1501", "own"]


def test_joined_sets_have_a_folder_each(monkeypatch):
    read = []
    monkeypatch.setattr(catalog, "_read_one", lambda name, root, folder: read.append((name, str(root))) or name)
    monkeypatch.setattr(catalog, "join", lambda parts: parts)
    assert read_dataset("own", f"a{os.pathsep}b") == "own"
    assert read == [("own", f"a{os.pathsep}b")]  # a single set's folder is taken as it is
    assert read_dataset("own+msvr310", f"a{os.pathsep}b") == [("own", "own"), ("msvr310", "msvr310")]
    assert read[1:] == [("own", "a"), ("msvr310", "b")]
    for roots in ("a", os.pathsep.join("abc")):
        with pytest.raises(ConfigError, match=r"own\+msvr310 is 2 data sets and --root names [13] folders"):
            read_dataset("own+msvr310", roots)
