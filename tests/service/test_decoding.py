"""The pool of decoding processes: what it gives, and that it survives what kills or blocks a process."""

import os
import signal
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from service_helpers import jpeg

from resight.config.sections import Preprocessing
from resight.data.image import decode, resize
from resight.service.errors import ServiceError
from resight.service.work import decoding
from resight.service.work.decode_worker import DecodeFailure, DecodeTask
from resight.service.work.decoding import DecodePool

PREPROCESSING = Preprocessing(size=(64, 32))


@pytest.fixture(scope="module")
def pool():
    made = DecodePool(PREPROCESSING, processes=2, max_megapixels=4, max_tasks=50, seconds=5)
    made.warm_up()
    yield made
    made.close()


def decode_one(pool, *encoded, thumbnails=False):
    return pool.submit(DecodeTask(encoded, thumbnails)).result(20)


def png(width, height):
    """A PNG that claims a size, with pixels that are all 0."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(min(width * height * 3 + height, 10**6)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_pictures_are_what_the_embedder_makes_of_them(pool):
    encoded = [jpeg(n, size=(40, 100)) for n in range(3)]
    result = decode_one(pool, *encoded, thumbnails=True)
    for data, picture in zip(encoded, result, strict=True):
        expected = resize(decode(data), PREPROCESSING.size, PREPROCESSING.test_interpolation)
        assert torch.equal(torch.from_numpy(picture.pixels), expected)
        again = resize(torch.from_numpy(picture.pixels), PREPROCESSING.size, PREPROCESSING.test_interpolation)
        assert torch.equal(again, expected)
        assert picture.pixels.dtype == np.uint8
        assert picture.thumbnail.startswith(b"\xff\xd8")
    assert decode_one(pool, encoded[0])[0].thumbnail is None


def test_bad_pictures_are_failures_that_say_which(pool):
    for bad, says in ((b"GIF", "no picture"), (jpeg()[:200], "cut short"), (b"", "empty"), (png(9000, 9000), "limit")):
        result = decode_one(pool, jpeg(), bad)
        assert isinstance(result, DecodeFailure)
        assert result.number == 1
        assert result.reason.startswith("picture 2 ")
        assert says in result.reason
    assert pool.replaced == 0


def test_a_process_that_is_killed_is_replaced_and_its_task_done(pool):
    before = pool.replaced
    killed = pool.process_ids
    for process in killed:
        os.kill(process, signal.SIGKILL)
    results = [pool.submit(DecodeTask((jpeg(n),), False)) for n in range(10)]
    assert all(len(result.result(20)) == 1 for result in results)
    assert before < pool.replaced <= before + 2
    assert set(pool.process_ids) != set(killed)


def test_a_process_that_takes_too_long_is_replaced(pool, monkeypatch):
    monkeypatch.setattr(pool, "_seconds", 0.3)
    before = pool.replaced
    stopped = pool.process_ids
    for process in stopped:
        os.kill(process, signal.SIGSTOP)
    began = time.monotonic()
    result = decode_one(pool, jpeg())
    assert isinstance(result, DecodeFailure)
    assert "longer than 0.3 seconds" in result.reason
    assert time.monotonic() - began < 5
    assert pool.replaced == before + 1
    for process in set(stopped) & set(pool.process_ids):
        os.kill(process, signal.SIGCONT)
    monkeypatch.setattr(pool, "_seconds", 5)
    assert len(decode_one(pool, jpeg())) == 1


def test_too_many_tasks_are_refused():
    small = DecodePool(PREPROCESSING, processes=1, max_tasks=1)
    try:
        small.warm_up()
        os.kill(small.process_ids[0], signal.SIGSTOP)
        running = small.submit(DecodeTask((jpeg(),), False))
        while small.waiting:
            time.sleep(0.001)
        waiting = small.submit(DecodeTask((jpeg(),), False))
        with pytest.raises(ServiceError, match="wait to be decoded") as refused:
            small.submit(DecodeTask((jpeg(),), False))
        assert refused.value.status == 503
        os.kill(small.process_ids[0], signal.SIGCONT)
        assert len(running.result(10)) == len(waiting.result(10)) == 1
    finally:
        small.close()


def test_a_picture_that_ends_its_process_fails_no_other_of_its_group(pool, monkeypatch):
    before = pool.replaced
    for process in pool.process_ids:
        os.kill(process, signal.SIGSTOP)
    held = [pool.submit(DecodeTask((jpeg(n),), False)) for n in range(2)]
    while pool.waiting:
        time.sleep(0.001)
    group = [pool.submit(DecodeTask((data,), False)) for data in (jpeg(2), b"GIF", jpeg(3), jpeg(4))]
    real = decoding._Worker.decode
    sizes = []

    def decode(worker, tasks, seconds):
        sizes.append(len(tasks))
        if len(tasks) > 1:
            os.kill(worker.process.pid, signal.SIGKILL)  # as if one of the pictures had done it
        return real(worker, tasks, seconds)

    monkeypatch.setattr(decoding._Worker, "decode", decode)
    for process in pool.process_ids:
        os.kill(process, signal.SIGCONT)
    assert all(len(future.result(20)) == 1 for future in held)
    results = [future.result(20) for future in group]
    assert isinstance(results[1], DecodeFailure)
    assert results[1].number == 0
    assert [len(result) for result in results[:1] + results[2:]] == [1, 1, 1]
    assert max(sizes) > 1
    assert pool.replaced > before
