"""Boxes in a video: read in the forms that trackers and detectors write, cut out of the right frames, embedded."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import small_model
from numpy.testing import assert_allclose

import resight
from resight.cli import main
from resight.data.boxes import Box, read_boxes
from resight.data.image import edges
from resight.data.sightings import Sighting, SightingTable
from resight.data.video import Video
from resight.errors import ConfigError, DatasetError, PictureError
from resight.inference.embeddings import (
    Embeddings,
    EmbeddingsInfo,
    embeddings_table,
    read_embeddings,
    write_embeddings,
)
from resight.inference.extract.sources import VideoSource

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg: apt install ffmpeg")
FRAMES, WIDTH, HEIGHT = 24, 96, 64


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video without loss, ten frames a second, and its frames, uint8 [N, h, w, 3]."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (FRAMES, HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    path = tmp_path_factory.mktemp("video") / "hall.mkv"
    command = (
        f"ffmpeg -v error -f rawvideo -pix_fmt rgb24 -s {WIDTH}x{HEIGHT} -r 10 -i - -c:v ffv1 -pix_fmt bgr0".split()
    )
    subprocess.run([*command, str(path)], input=frames.tobytes(), check=True)
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
    ("name", "text", "message"),
    [
        ("a.txt", "1,1,0,0,10,10\n1,x,0,0,10,10\n", "line 2, is no box"),
        ("a.txt", "1,1,0,0\n", "line 1, is no box"),
        ("a.txt", "0,1,0,0,10,10\n", "frame -1"),
        ("a.txt", "1,1,0,0,0,10\n", "no width"),
        ("a.txt", "1,1,nan,0,10,10\n", "no width"),
        ("a.txt", "\n", "has no box"),
        ("a.json", "{", "is not valid JSON"),
        ("a.json", "{}", "must contain a list"),
        ("a.json", '[{"frame": 1}]', "entry 1, is no box: KeyError 'bbox'"),
        ("a.jsonl", '{"frame": 1, "box": [1, 2, 3]}', "line 1, is no box"),
        ("a.jsonl", "[]", "line 1, is no box"),
        ("a.xml", "<a/>", "must be .txt or .csv"),
    ],
)
def test_what_is_no_box_is_said(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_boxes(tmp_path / name)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_boxes(tmp_path / "none.txt")


def test_edges_are_whole_pixels_within_the_frame():
    corners, inside = edges(np.array([[1.5, 2.5, 3.2, 4.0], [-5, -5, 200, 200], [96, 0, 99, 9], [-9, 0, 0, 9]]), 64, 96)
    assert corners[:2].tolist() == [[1, 2, 4, 4], [0, 0, 96, 64]]
    assert inside.tolist() == [True, True, False, False]


@needs_ffmpeg
def test_crops_are_of_their_frames(video):
    path, frames = video
    boxes = sorted([*BOXES, Box(3, 200, 0, 220, 9), Box(FRAMES, 0, 0, 9, 9)], key=lambda box: box.frame)
    crops = list(Video(path).crops(boxes))
    assert sorted(box.frame for box, _, _ in crops) == [box.frame for box in boxes]
    for box, seconds, crop in crops:
        if box.frame == FRAMES:
            assert crop == f"{path} has no frame {FRAMES}, only {FRAMES} of them"
        elif box.left == 200:
            assert crop == f"{path}, frame 3: the box 200, 0, 220, 9 is outside the frame"
        else:
            expected = frames[box.frame, int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
            np.testing.assert_array_equal(crop.permute(1, 2, 0).numpy(), expected)
            assert seconds == pytest.approx(box.frame / 10, abs=2e-3)


@needs_ffmpeg
def test_a_video_is_extracted_as_its_crops_are_embedded(video, tmp_path, capsys):
    path, frames = video
    folder, boxes = small_model(tmp_path / "model"), mot(tmp_path / "hall.txt", [*BOXES, Box(99, 0, 0, 9, 9, "1", 1.0)])
    out = tmp_path / "e.parquet"
    arguments = ["extract", folder, path, "--boxes", boxes, "--out", out, "--precision", "fp32", "--device", "cpu"]
    arguments += ["--camera", "c2", "--start", "100", "--min-confidence", "0.25"]
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr()
    assert f"{len(BOXES)} embeddings (0 from an earlier run" in printed.out
    assert "has no frame 99" in printed.err
    embeddings, _ = read_embeddings(out)
    sightings, columns = embeddings.sightings, pq.read_table(out)
    rows = sorted(BOXES, key=lambda box: box.frame)
    assert columns.column("frame").to_pylist() == [box.frame for box in rows]
    for edge in ("left", "top", "right", "bottom", "confidence"):
        assert_allclose(columns.column(edge).to_pylist(), [getattr(box, edge) for box in rows])
    assert sightings.column("tracklet") == [box.tracklet for box in rows]
    assert sightings.column("rgb") == [str(path)] * len(rows)
    assert sightings.modalities == ("rgb",)
    assert set(sightings.column("camera")) == {"c2"}
    assert_allclose(sightings.column("time"), [100 + box.frame / 10 for box in rows], atol=2e-3)
    crops = [frames[b.frame, int(b.top) : int(b.bottom), int(b.left) : int(b.right)] for b in rows]
    embedder = resight.load(folder, "cpu", "fp32")
    expected = embedder.embed(crops, camera="c2")
    assert_allclose(embeddings.vectors, expected, atol=1e-5)
    assert embeddings.info.embedding_id == embedder.embedding_id

    gallery = f"exact:{tmp_path / 'g'}"
    assert main(["gallery", "create", gallery, "--model", str(folder)]) == 0
    for added, present in ((len(BOXES), 0), (0, len(BOXES))):
        capsys.readouterr()
        arguments = ["gallery", "add", gallery, "--embeddings", str(out), "--metadata", "site=hall"]
        assert main(arguments) == 0
        assert f"{added} added, {present} already present" in capsys.readouterr().out
    with resight.open_gallery(gallery) as opened:
        records = list(opened.engine.scan(resight.Filter(metadata={"site": "hall", "frame": 5})))
        assert [(r.tracklet, r.camera) for r in records] == [("7", "c2"), (None, "c2")]
        assert all(r.images == {"rgb": str(path)} for r in records)
        stored = sorted(opened.engine.scan(), key=lambda r: (r.metadata["frame"], r.tracklet is None))
        assert_allclose(np.stack([r.vector for r in stored]), expected, atol=1e-5)


@needs_ffmpeg
def test_a_source_of_boxes_in_parts(video, tmp_path):
    path, frames = video
    rows = sorted(BOXES, key=lambda box: box.frame)
    source = VideoSource(path, rows, camera="c1", modality="tir", start=5)
    assert len(source) == len(BOXES)
    assert source.digest() != VideoSource(path, rows, camera="c2", modality="tir", start=5).digest()
    part = source.part(slice(4, 9))
    assert len(part) == 5
    for (row, images), box in zip(part.read(), rows[4:9], strict=True):
        assert row.keys() == set(source.columns)
        assert (row["tir"], row["rgb"], row["frame"], row["camera"]) == (str(path), None, box.frame, "c1")
        assert row["time"] == pytest.approx(5 + box.frame / 10, abs=2e-3)
        crop = frames[box.frame, int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
        np.testing.assert_array_equal(images["tir"].permute(1, 2, 0).numpy(), crop)


def test_embeddings_of_another_model_or_none_are_refused(tmp_path, capsys):
    folder, gallery = small_model(tmp_path / "model"), f"exact:{tmp_path / 'g'}"
    assert main(["gallery", "create", gallery, "--model", str(folder)]) == 0
    sightings = SightingTable.of([Sighting({"rgb": tmp_path / "a.jpg"})])
    vectors = np.eye(1, resight.load(folder, "cpu").width, dtype=np.float32)
    plain, text, other = (tmp_path / f"{name}.parquet" for name in ("plain", "text", "other"))
    pq.write_table(embeddings_table(vectors, sightings.arrow), plain)
    text.write_text("no")
    write_embeddings(other, Embeddings(vectors, sightings, EmbeddingsInfo(embedding_id="0" * 16)))
    for arguments, message in (
        (["--embeddings", plain], "is no file of embeddings"),
        (["--embeddings", text], "cannot be read as embeddings"),
        (["--embeddings", other], "cannot be compared"),
        (["--embeddings", other, "--thumbnails"], "--thumbnails and"),
        (["--embeddings", other, tmp_path], "give either"),
        ([], "give either"),
    ):
        assert main(["gallery", "add", gallery, *map(str, arguments)]) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    with resight.open_gallery(gallery) as opened:
        assert len(opened) == 0


def numbers(**changes):
    """What torchcodec states of a video."""
    figures = {"average_fps": 10.0, "begin_stream_seconds": 0.0, "end_stream_seconds": 1.0, "width": 64, "height": 48}
    return SimpleNamespace(**{**figures, **changes})


class FakeDecoder:
    """A decoder of a video of 10 frames."""

    def __init__(self, metadata, frames=10, seconds=0.0):
        self.metadata = metadata
        self.frames = frames
        self.seconds = seconds
        self.calls = []

    def __len__(self):
        return self.frames

    def get_frames_at(self, frames):
        self.calls.append(frames)
        seconds = torch.tensor([self.seconds] * len(frames), dtype=torch.float64)
        return SimpleNamespace(data=torch.zeros(len(frames), 3, 48, 64, dtype=torch.uint8), pts_seconds=seconds)


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Open a file of 100 bytes as a video, with a decoder of the test's own."""

    def open_with(decoder):
        def create(path):
            if isinstance(decoder, Exception):
                raise decoder
            return decoder

        monkeypatch.setitem(sys.modules, "torchcodec.decoders", SimpleNamespace(VideoDecoder=create))
        (tmp_path / "a.mp4").write_bytes(bytes(100))
        return Video(tmp_path / "a.mp4")

    return open_with


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (FakeDecoder(numbers(), frames=0), "it states 0 frames in 100 bytes"),
        (FakeDecoder(numbers(), frames=-1), "a number in its header is not possible .ValueError"),
        (FakeDecoder(numbers(), frames=2**31 - 1), f"it states {2**31 - 1} frames in 100 bytes"),
        (FakeDecoder(numbers(average_fps=float("inf"))), "it states a frame rate of inf"),
        (FakeDecoder(numbers(average_fps=float("nan"))), "it states a frame rate of nan"),
        (FakeDecoder(numbers(begin_stream_seconds=float("-inf"))), "it states a start of -inf"),
        (FakeDecoder(numbers(end_stream_seconds=float("nan"))), "it states an end of nan"),
        (FakeDecoder(numbers(width=20000, height=20000)), "a frame of .* has 20000 x 20000 pixels, and the limit is"),
        (ZeroDivisionError("Fraction(241, 0)"), "a number in its header is not possible .ZeroDivisionError Fraction"),
        (ValueError("The best video stream is unknown and"), "it has no video stream"),
        (AssertionError(), "a number in its header is not possible .AssertionError"),
        (RuntimeError("scan, /a/b.cpp:232, Could not seek\nmore"), "can decode: Could not seek$"),
    ],
)
def test_impossible_numbers_of_a_video_are_one_sentence(opened, decoder, message):
    with pytest.raises(PictureError, match=message) as raised:
        opened(decoder)
    assert str(raised.value).isprintable()


def test_frames_without_a_time_or_of_any_size_are_cropped_in_parts(opened):
    boxes = [Box(n, 0, 0, 9, 9) for n in range(-1, 10)]
    for seconds in (float("nan"), float("inf")):
        results = list(opened(FakeDecoder(numbers(), seconds=seconds)).crops(boxes[1:]))
        assert [time for _, time, _ in results] == [0.0] * 10
        assert all(f"has no time: the file states {seconds} seconds" in reason for _, _, reason in results)
    for (width, height), calls in (((64, 48), 2), ((1920, 1080), 2), ((3840, 2160), 5), ((9000, 9000), 10)):
        decoder = FakeDecoder(numbers(width=width, height=height))
        results = list(opened(decoder).crops(boxes))
        assert len(decoder.calls) == calls
        assert sum(not isinstance(crop, str) for _, _, crop in results) == 10
        assert results[-1][2].endswith("a.mp4 has no frame -1, only 10 of them")


def test_frames_that_cannot_be_decoded_are_reasons(opened, monkeypatch):
    decoder = FakeDecoder(numbers())
    monkeypatch.setattr(decoder, "get_frames_at", lambda frames: 1 // 0)
    results = list(opened(decoder).crops([Box(n, 0, 0, 9, 9) for n in range(10)]))
    assert "frames 0 to 7, cannot be decoded: a number in its header is not possible" in results[0][2]


@needs_ffmpeg
@pytest.mark.parametrize("kind", ["sound", "none", "header"])
def test_a_file_without_frames_is_one_sentence(tmp_path, kind):
    path = tmp_path / f"{kind}.mp4"
    source = "sine=d=1" if kind == "sound" else "testsrc=s=64x48:r=10:d=1"
    options = {"sound": [], "none": ["-frames:v", "0"], "header": ["-movflags", "frag_keyframe+empty_moov"]}[kind]
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, *options, str(path)], check=True)
    if kind == "header":
        path.write_bytes(path.read_bytes()[: path.read_bytes().index(b"moof") - 4])
    with pytest.raises(PictureError, match=r"is no video that FFmpeg can decode|cannot be decoded") as raised:
        Video(path)
    assert str(raised.value).isprintable()
    assert ".cpp" not in str(raised.value)


@needs_ffmpeg
def test_a_video_whose_header_was_changed_gives_crops_or_a_sentence(video, tmp_path):
    path, _ = video
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    changed = tmp_path / "changed.mkv"
    for _ in range(300):
        copy = bytearray(data)
        for position in rng.integers(0, 600, 3):
            copy[position : position + 4] = [b"\0\0\0\0", b"\xff" * 4, b"\x7f\xc0\0\0", rng.bytes(4)][rng.integers(4)]
        changed.write_bytes(copy)
        try:
            opened = Video(changed)
        except PictureError:
            continue
        for _, seconds, crop in opened.crops(BOXES[:3]):
            assert np.isfinite(seconds)
            assert isinstance(crop, str) or crop.shape[0] == 3


def test_what_is_no_video_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    for path, message in (
        (tmp_path / "a.mp4", r"a\.mp4 is a pipe, not a file"),
        (tmp_path, "is a folder, not a file"),
        (tmp_path / "a\0.mp4", r"there is no video at .*a\\x00\.mp4"),
        (tmp_path / ("n" * 5000), "there is no video at"),
    ):
        with pytest.raises(PictureError, match=message) as raised:
            Video(path)
        assert str(raised.value).isprintable()


def test_what_cannot_be_a_video_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt").write_text("1,1,0,0,10,10\n")
    (tmp_path / "a.mp4").write_text("no")
    for arguments, message in (
        ([tmp_path / "none.mp4", "--boxes", tmp_path / "a.txt"], "there is no video at"),
        ([tmp_path / "a.mp4", tmp_path / "a.mp4", "--boxes", tmp_path / "a.txt"], "needs one video"),
        ([tmp_path / "a.mp4", "--start", "3"], "--start is for a video"),
        (
            [tmp_path / "a.mp4", "--boxes", tmp_path / "a.txt", "--workers", "2", "--ray", "local"],
            "exclude each other",
        ),
    ):
        assert main(["extract", "m", *map(str, arguments), "--out", "e"]) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    if shutil.which("ffmpeg"):
        with pytest.raises(PictureError, match="is no video that FFmpeg can decode"):
            Video(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ConfigError, match=r"pip install 'resight\[video\]'"):
        Video(tmp_path / "a.mp4")


def test_without_ffmpeg_it_is_said_what_to_install(tmp_path):
    """torchcodec itself finds no library that it can load."""
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
    process = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a.mp4"], capture_output=True, text=True, check=True
    )
    assert "PictureError video needs FFmpeg's libraries" in process.stdout
    assert "apt install ffmpeg" in process.stdout
