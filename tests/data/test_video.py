"""Boxes in a video: read in the forms that trackers and detectors write, cut out of the right frames, embedded."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import small_model
from numpy.testing import assert_allclose

import resight
from resight.cli import main
from resight.data.boxes import Box, read_boxes
from resight.data.image import edges
from resight.data.video import Video
from resight.errors import DatasetError, PictureError

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg: apt install ffmpeg")
FRAMES, WIDTH, HEIGHT = 24, 96, 64


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video without loss, ten frames a second, and its frames, uint8 [N, h, w, 3]."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (FRAMES, HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    path = tmp_path_factory.mktemp("video") / "hall.mkv"
    words = f"ffmpeg -v error -f rawvideo -pix_fmt rgb24 -s {WIDTH}x{HEIGHT} -r 10 -i - -c:v ffv1 -pix_fmt bgr0".split()
    subprocess.run([*words, str(path)], input=frames.tobytes(), check=True)
    return path, frames


def mot(path, boxes):
    lines = [
        f"{b.frame + 1},{b.tracklet or -1},{b.left},{b.top},{b.right - b.left},{b.bottom - b.top},{b.confidence},-1,-1"
        for b in boxes
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


BOXES = [Box(n, 5 + n, 3, 25 + n, 60, "7", 0.9) for n in range(FRAMES)] + [
    Box(n, 50, 10 + n, 80, 40 + n, None, 0.3) for n in range(0, FRAMES, 5)
]


def test_boxes_are_read_as_they_are_written(tmp_path):
    expected = sorted(BOXES, key=lambda box: box.frame)
    assert read_boxes(mot(tmp_path / "a.txt", BOXES)) == expected
    entries = [
        {
            "frame": b.frame,
            "box": [b.left, b.top, b.right, b.bottom],
            "tracklet": b.tracklet,
            "confidence": b.confidence,
        }
        for b in BOXES
    ]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    assert read_boxes(tmp_path / "a.json") == expected
    entries = [
        {"frame": b.frame, "bbox": [b.left, b.top, b.right - b.left, b.bottom - b.top], "score": b.confidence}
        | ({} if b.tracklet is None else {"track_id": int(b.tracklet)})
        for b in BOXES
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, entries)))
    assert read_boxes(tmp_path / "a.jsonl") == expected
    assert read_boxes(tmp_path / "a.jsonl", 0.5) == [b for b in expected if b.confidence > 0.5]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "1,1,0,0,10,10\n1,x,0,0,10,10\n", "line 2, is no box"),
        ("a.txt", "1,1,0,0\n", "line 1, is no box"),
        ("a.txt", "0,1,0,0,10,10\n", "frame -1"),
        ("a.txt", "1,1,0,0,0,10\n", "no width"),
        ("a.txt", "1,1,nan,0,10,10\n", "no width"),
        ("a.txt", "\n", "holds no box"),
        ("a.json", "{", "is no JSON"),
        ("a.json", "{}", "must hold a list"),
        ("a.json", '[{"frame": 1}]', "entry 1, is no box: KeyError 'bbox'"),
        ("a.jsonl", '{"frame": 1, "box": [1, 2, 3]}', "line 1, is no box"),
        ("a.jsonl", "[]", "line 1, is no box"),
        ("a.xml", "<a/>", "must be .txt or .csv"),
    ],
)
def test_what_is_no_box_is_said(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=said):
        read_boxes(tmp_path / name)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_boxes(tmp_path / "none.txt")


def test_edges_are_whole_pixels_within_the_frame():
    whole, there = edges(np.array([[1.5, 2.5, 3.2, 4.0], [-5, -5, 200, 200], [96, 0, 99, 9], [-9, 0, 0, 9]]), 64, 96)
    assert whole[:2].tolist() == [[1, 2, 4, 4], [0, 0, 96, 64]]
    assert there.tolist() == [True, True, False, False]


@needs_ffmpeg
def test_crops_are_of_their_frames(video):
    path, frames = video
    boxes = sorted([*BOXES, Box(3, 200, 0, 220, 9), Box(FRAMES, 0, 0, 9, 9)], key=lambda box: box.frame)
    found = list(Video(path).crops(boxes))
    assert sorted(box.frame for box, _, _ in found) == [box.frame for box in boxes]
    for box, seconds, crop in found:
        if box.frame == FRAMES:
            assert crop == f"{path} has no frame {FRAMES}, only {FRAMES} of them"
        elif box.left == 200:
            assert crop == f"{path}, frame 3: the box 200, 0, 220, 9 lies outside of the frame"
        else:
            wanted = frames[box.frame, int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
            np.testing.assert_array_equal(crop.permute(1, 2, 0).numpy(), wanted)
            assert seconds == pytest.approx(box.frame / 10, abs=2e-3)


@needs_ffmpeg
def test_a_video_is_extracted_as_its_crops_are_embedded(video, tmp_path, capsys):
    path, frames = video
    folder, boxes = small_model(tmp_path / "model"), mot(tmp_path / "hall.txt", [*BOXES, Box(99, 0, 0, 9, 9, "1", 1.0)])
    words = ["extract", folder, path, "--boxes", boxes, "--out", tmp_path / "e.parquet", "--precision", "fp32"]
    words += ["--camera", "c2", "--start", "100", "--min-confidence", "0.25", "--device", "cpu"]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr()
    assert f"{len(BOXES)} embeddings (0 from an earlier run" in said.out
    assert "has no frame 99" in said.err
    found = pq.read_table(tmp_path / "e.parquet")
    rows = sorted(BOXES, key=lambda box: box.frame)
    assert found.column("frame").to_pylist() == [box.frame for box in rows]
    assert found.column("tracklet").to_pylist() == [box.tracklet for box in rows]
    assert set(found.column("camera").to_pylist()) == {"c2"}
    assert set(found.column("modality").to_pylist()) == {"rgb"}
    assert_allclose(found.column("time").to_pylist(), [100 + box.frame / 10 for box in rows], atol=2e-3)
    assert_allclose(found.column("bottom").to_pylist(), [box.bottom for box in rows])
    cut = [frames[b.frame, int(b.top) : int(b.bottom), int(b.left) : int(b.right)] for b in rows]
    expected = resight.load(folder, "cpu", "fp32").embed(cut, camera="c2")
    assert_allclose(np.stack(found.column("embedding").to_pylist()), expected, atol=1e-5)

    assert main(["gallery", "create", str(tmp_path / "g"), "--model", str(folder)]) == 0
    for added, there in ((len(BOXES), 0), (0, len(BOXES))):
        capsys.readouterr()
        words = ["gallery", "add", tmp_path / "g", "--embeddings", tmp_path / "e.parquet", "--metadata", "site=hall"]
        assert main([str(word) for word in words]) == 0
        assert f"{added} added, {there} were there already" in capsys.readouterr().out
    engine = resight.open_engine(str(tmp_path / "g"))
    kept = list(engine.scan(resight.Filter(metadata={"site": "hall", "frame": 5})))
    assert [(r.tracklet, r.camera, r.picture) for r in kept] == [("7", "c2", str(path)), (None, "c2", str(path))]
    assert_allclose(np.stack([r.vector for r in engine.scan()]), expected, atol=1e-5)
    engine.close()


def test_embeddings_of_another_model_or_none_are_refused(tmp_path, capsys):
    folder = small_model(tmp_path / "model")
    assert main(["gallery", "create", str(tmp_path / "g"), "--model", str(folder)]) == 0
    row = {"picture": ["a.jpg"], "embedding": pa.FixedSizeListArray.from_arrays(pa.array([1.0], pa.float32()), 1)}
    pq.write_table(pa.table(row), tmp_path / "plain.parquet")
    pq.write_table(pa.table(row).replace_schema_metadata({"model": "another"}), tmp_path / "other.parquet")
    (tmp_path / "no.parquet").write_text("no")
    for words, said in (
        (["--embeddings", tmp_path / "plain.parquet"], "holds no embeddings"),
        (["--embeddings", tmp_path / "no.parquet"], "cannot be read as embeddings"),
        (["--embeddings", tmp_path / "other.parquet"], "cannot be compared"),
        (["--embeddings", tmp_path / "other.parquet", "--thumbnails"], "--thumbnails and"),
        (["--embeddings", tmp_path / "other.parquet", tmp_path], "one of the two"),
        ([], "one of the two"),
    ):
        assert main(["gallery", "add", str(tmp_path / "g"), *map(str, words)]) == 2
        assert said in capsys.readouterr().err


def test_what_cannot_be_a_video_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt").write_text("1,1,0,0,10,10\n")
    (tmp_path / "a.mp4").write_text("no")
    for words, said in (
        ([tmp_path / "none.mp4", "--boxes", tmp_path / "a.txt"], "there is no video at"),
        ([tmp_path / "a.mp4", tmp_path / "a.mp4", "--boxes", tmp_path / "a.txt"], "are of one video"),
        ([tmp_path / "a.mp4", "--camera", "c1"], "--camera is of a video"),
        (
            [tmp_path / "a.mp4", "--boxes", tmp_path / "a.txt", "--processes", "2", "--ray", "local"],
            "give one of the two",
        ),
    ):
        assert main(["extract", "m", *map(str, words), "--out", "e"]) == 2
        assert said in capsys.readouterr().err.replace("\n", " ")
    if shutil.which("ffmpeg"):
        with pytest.raises(PictureError, match="is no video that FFmpeg can decode"):
            Video(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(PictureError, match=r"pip install 'resight\[video\]'"):
        Video(tmp_path / "a.mp4")


def test_without_ffmpeg_it_is_said_what_to_install(tmp_path):
    """torchcodec itself is asked, and finds no library that it can load."""
    script = """
import sys, torch
from pathlib import Path
from resight.data.video import Video
real = torch.ops.load_library
def none(path):
    if "libtorchcodec_core" in str(path):
        raise OSError("libavutil.so.59: cannot open shared object file: No such file or directory")
    return real(path)
torch.ops.load_library = none
try:
    Video(Path(sys.argv[1]))
except Exception as error:
    print(type(error).__name__, error)
"""
    (tmp_path / "a.mp4").write_text("no")
    said = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a.mp4"], capture_output=True, text=True, check=True
    )
    assert "PictureError video needs FFmpeg's libraries" in said.stdout
    assert "apt install ffmpeg" in said.stdout
