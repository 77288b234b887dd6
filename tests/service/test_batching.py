"""Micro-batches: what is computed together, in which order, and what happens when there is too much."""

import threading
import time

import numpy as np
import pytest
import torch
from conftest import small_model

import resight
from resight.service.errors import ServiceError
from resight.service.work import batching
from resight.service.work.batching import Batcher


class Network:
    """Stands for the network: gives the first pixel of each sighting, and can be held up."""

    def __init__(self):
        self.batches = []
        self.threads = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, sightings, cameras, views):
        self.threads.append(torch.get_num_threads())
        assert self.open.wait(5)
        self.batches.append(list(zip(cameras, views, strict=True)))
        if any(float(s["rgb"].flatten()[0]) < 0 for s in sightings):
            raise ValueError("negative")
        return np.array([[float(s["rgb"].flatten()[0])] for s in sightings], np.float32)


def sighting(value, **others):
    return {"rgb": torch.full((3, 2, 2), float(value)), **{name: torch.zeros(3, 2, 2) for name in others}}


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def make(network):
    made = []

    def start(batch_size=4, max_queue=8, cores=1):
        made.append(Batcher(network, batch_size, max_queue, cores=cores))
        return made[-1]

    yield start
    network.open.set()
    for batcher in made:
        batcher.close()


def hold(network, batcher):
    """Keep the thread busy with a first job, so that others collect."""
    network.open.clear()
    first = batcher.submit([sighting(0)])
    while batcher.waiting:
        time.sleep(0.001)
    return first


def test_jobs_that_wait_are_one_batch_in_their_order(network, make):
    batcher = make()
    first = hold(network, batcher)
    futures = [batcher.submit([sighting(n)], f"c{n}", f"v{n}") for n in range(1, 4)]
    pair = batcher.submit([sighting(5), sighting(6)], "c5")
    network.open.set()
    assert first.result(5).tolist() == [[0]]
    assert [future.result(5).tolist() for future in futures] == [[[1]], [[2]], [[3]]]
    assert pair.result(5).tolist() == [[5], [6]]
    assert network.batches == [
        [(None, None)], [("c1", "v1"), ("c2", "v2"), ("c3", "v3")], [("c5", None), ("c5", None)],
    ]  # fmt: skip


def test_a_full_queue_refuses_and_recovers(network, make):
    batcher = make(max_queue=3)
    first = hold(network, batcher)
    futures = [batcher.submit([sighting(n)]) for n in range(3)]
    with pytest.raises(ServiceError, match="3 pictures wait") as refused:
        batcher.submit([sighting(9)])
    assert refused.value.status == 503
    assert refused.value.headers == {"Retry-After": "1"}
    network.open.set()
    assert [future.result(5)[0, 0] for future in [first, *futures]] == [0, 0, 1, 2]
    assert batcher.submit([sighting(7)]).result(5)[0, 0] == 7


def test_a_request_larger_than_batch_and_queue_is_computed_alone(network, make):
    batcher = make(batch_size=2, max_queue=2)
    result = batcher.submit([sighting(n) for n in range(5)]).result(5)
    assert result[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_modalities_count_as_pictures(network, make):
    batcher = make(batch_size=4)
    hold(network, batcher)
    futures = [batcher.submit([sighting(n, nir=1, tir=1)]) for n in range(2)]
    network.open.set()
    assert [future.result(5)[0, 0] for future in futures] == [0, 1]
    assert [len(batch) for batch in network.batches] == [1, 1, 1]  # 3 + 3 pictures do not fit into a batch of 4


def test_an_error_fails_only_its_own_request(network, make):
    batcher = make()
    hold(network, batcher)
    good, bad, other = (batcher.submit([sighting(value)]) for value in (1, -1, 2))
    network.open.set()
    assert good.result(5)[0, 0] == 1
    assert other.result(5)[0, 0] == 2
    with pytest.raises(ValueError, match="negative"):
        bad.result(5)


def test_a_cancelled_job_is_not_computed(network, make):
    batcher = make()
    hold(network, batcher)
    cancelled = batcher.submit([sighting(1)])
    kept = batcher.submit([sighting(2)])
    assert cancelled.cancel()
    network.open.set()
    assert kept.result(5)[0, 0] == 2
    assert sum(map(len, network.batches)) == 2


def test_closing_computes_what_waits_and_refuses_what_comes(network, make):
    batcher = make()
    hold(network, batcher)
    futures = [batcher.submit([sighting(n)]) for n in range(5)]
    threading.Timer(0.05, network.open.set).start()
    batcher.close()
    assert [future.result(0)[0, 0] for future in futures] == [0, 1, 2, 3, 4]
    assert not batcher.is_running
    with pytest.raises(ServiceError, match="ending"):
        batcher.submit([sighting(1)])


def test_a_batch_waits_for_pictures_that_are_being_decoded(network, make, monkeypatch):
    monkeypatch.setattr(batching, "_PATIENCE", 30)
    batcher = make()
    with batcher.expected(2), batcher.expected(1):
        first = batcher.submit([sighting(1)])
        second = batcher.submit([sighting(2)])
        assert not first.done()
    assert [first.result(5)[0, 0], second.result(5)[0, 0]] == [1, 2]
    assert [len(batch) for batch in network.batches] == [2]


def test_a_batch_that_is_full_waits_for_nothing_and_another_not_for_long(make, monkeypatch):
    batcher = make(batch_size=2)
    with batcher.expected(9):
        assert batcher.submit([sighting(1)]).result(5)[0, 0] == 1  # its patience has an end
        monkeypatch.setattr(batching, "_PATIENCE", 30)
        pair = batcher.submit([sighting(2), sighting(3)])
        assert pair.result(5)[:, 0].tolist() == [2, 3]


def test_a_batch_does_not_wait_for_pictures_that_could_not_be_decoded(make, monkeypatch):
    monkeypatch.setattr(batching, "_PATIENCE", 30)
    batcher = make()
    with batcher.expected(1):
        job = batcher.submit([sighting(1)])
        with pytest.raises(ValueError, match="bad"), batcher.expected(1):
            raise ValueError("bad")
    assert job.result(5)[0, 0] == 1


def test_two_batches_at_a_time_have_half_of_the_cores_each_and_a_single_one_has_all(network, make):
    batcher = make(cores=4)
    first = hold(network, batcher)
    while len(network.threads) < 1:
        time.sleep(0.001)
    second = batcher.submit([sighting(1)])  # is not held up by the first
    while len(network.threads) < 2:
        time.sleep(0.001)
    third = batcher.submit([sighting(2)])
    time.sleep(0.05)
    assert batcher.waiting == 1  # two batches are computed, and the next one collects
    network.open.set()
    assert [future.result(5)[0, 0] for future in (first, second, third)] == [0, 1, 2]
    assert network.threads[:2] == [4, 2]
    time.sleep(0.05)
    assert batcher.submit([sighting(3)]).result(5)[0, 0] == 3
    assert network.threads[-1] == 4


def test_a_batch_shares_the_cores_while_other_pictures_are_decoded(network, make):
    batcher = make(cores=2)
    with batcher.expected(1):
        assert batcher.submit([sighting(1)]).result(5)[0, 0] == 1
    assert batcher.submit([sighting(2)]).result(5)[0, 0] == 2
    assert network.threads == [1, 2]


def test_every_job_of_many_threads_is_computed_once(network, make):
    batcher = make(batch_size=3, max_queue=1000, cores=2)
    results = {}

    def client(number):
        for n in range(20):
            value = 100 * number + n
            with batcher.expected(1):
                future = batcher.submit([sighting(value)])
            results[value] = future.result(5)[0, 0]

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert results == {value: value for value in results}
    assert len(results) == sum(map(len, network.batches)) == 160


def test_two_batches_at_a_time_give_what_the_model_gives_alone(tmp_path):
    folder = small_model(tmp_path / "m", modalities=("rgb",), sie=("camera",), jpm=False)
    embedder = resight.load(folder, "cpu", "fp32", unknown="off")
    images = torch.randint(0, 256, (24, 3, 64, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    cameras = ["c1", None, "c9"]
    expected = embedder.embed(list(images), camera=[cameras[n % 3] for n in range(24)])
    with embedder.evaluation_mode():
        batcher = Batcher(embedder.embed, 2, 100, cores=2)
        for _ in range(5):
            futures = [batcher.submit([{"rgb": image}], cameras[n % 3]) for n, image in enumerate(images)]
            actual = np.concatenate([future.result(30) for future in futures])
            np.testing.assert_allclose(actual, expected, atol=1e-5)
        batcher.close()
