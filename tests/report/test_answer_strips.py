"""Strips of a search: the frame says whether an answer reaches the threshold, and missing files are no error."""

import io

import numpy as np
from conftest import picture
from PIL import Image

from resight.data.sightings import Sighting
from resight.gallery.answers import Answer
from resight.gallery.record import Record
from resight.report.answer_strips import answer_strip, sighting_of
from resight.report.cells import NEUTRAL, QUERY, RIGHT, WRONG, Layout

VECTOR = np.array([1.0, 0.0], np.float32)


def test_frames_and_images(tmp_path):
    query = Sighting({"rgb": picture(tmp_path / "q.png")})
    thumbnail = io.BytesIO()
    Image.new("RGB", (8, 16), (1, 2, 3)).save(thumbnail, "PNG")
    records = [
        Record("a", VECTOR, "ann", images={"rgb": str(picture(tmp_path / "a.png", 1))}),
        Record("b", VECTOR, images={"rgb": str(tmp_path / "moved.png")}, thumbnail=thumbnail.getvalue()),
        Record("c", VECTOR, images={"rgb": str(tmp_path / "gone.png")}),
        Record("d", VECTOR),
    ]
    known = [True, False, False, True]
    answers = [Answer(record, 0.5, 0.25, flag) for record, flag in zip(records, known, strict=True)]
    strip = np.asarray(answer_strip([query], [answers], k=4))
    layout = Layout(5, 1, ("rgb",), 208, lines_above=3)
    assert strip.shape[1::-1] == layout.size
    for column, colour in enumerate([QUERY, *(RIGHT if flag else WRONG for flag in known)]):
        left, top, right, bottom = layout.frame(0, column)
        for x, y in ((left, top), (right, top), (left, bottom), (right, bottom)):
            assert tuple(strip[y, x]) == colour
    centres = [strip[(box[1] + box[3]) // 2, (box[0] + box[2]) // 2] for box in map(layout.frame, [0] * 5, range(5))]
    assert tuple(centres[2]) == (1, 2, 3)  # the thumbnail
    assert tuple(centres[3]) == tuple(centres[4]) == (235, 235, 235)  # no image
    assert tuple(centres[1]) != (235, 235, 235)


def test_a_model_without_a_calibration_has_grey_frames(tmp_path):
    record = Record("a", VECTOR, "ann", "c1", images={"rgb": str(picture(tmp_path / "a.png", 1))})
    assert sighting_of(record) == Sighting({"rgb": tmp_path / "a.png"}, "ann", "c1")
    queries = [Sighting({"rgb": tmp_path / "a.png"})] * 2
    strip = np.asarray(answer_strip(queries, [[Answer(record, 0.5, None, None)], []]))
    layout = Layout(2, 2, ("rgb",), 208)
    assert strip.shape[1::-1] == layout.size
    left, top, *_ = layout.frame(0, 1)
    assert tuple(strip[top, left]) == NEUTRAL
    assert (strip[layout.frame(1, 1)[1] :, layout.frame(1, 1)[0] :] == 255).all()  # no answer
