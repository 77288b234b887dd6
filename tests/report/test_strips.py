"""Rank strips: right and wrong sightings have frames of different colours, best average precision first."""

import numpy as np
from conftest import small_model

import resight
from resight.data.catalog import read_dataset
from resight.report.cells import RIGHT, WRONG, Layout
from resight.report.strips import rank_strip


def test_rank_strip_frames_right_and_wrong(painted, tmp_path):
    names = ("rgb", "nir", "tir")
    embedder = resight.load(small_model(tmp_path / "m", modalities=names, sie=("modality",)), "cpu", "fp32")
    result = resight.evaluate(embedder, read_dataset("synthetic", painted))
    strip = np.asarray(rank_strip(result, rows=2, k=4))
    _, hits = result.top(4)
    layout = Layout(columns=5, rows=2, modalities=names, image_height=128)
    assert strip.shape[1::-1] == layout.size
    order = np.argsort(-result.metrics.ap, kind="stable")
    for row, query in enumerate((order[0], order[-1])):
        for column, hit in enumerate(hits[query], start=1):
            left, top, right, bottom = layout.frame(row, column)
            for x, y in ((left, top), (right, top), (left, bottom), (right, bottom)):
                assert tuple(strip[y, x]) == (RIGHT if hit else WRONG)
            outside = strip[top - 1, left - 1 : right + 2]
            assert not (outside == (RIGHT if hit else WRONG)).all(1).any()
