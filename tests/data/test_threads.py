"""Threads that prepare images: torch computes in the thread itself there, and as before everywhere else."""

import threading
import time

import pytest
import torch

from resight.data.threads import preparing_threads


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_new_thread():
    """Threads of torch in a thread that has just started."""
    numbers = []
    thread = threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return numbers[0]


def test_torch_computes_in_the_thread_itself_and_as_before_in_others():
    barrier = threading.Barrier(3, timeout=5)

    def wait():
        barrier.wait()
        return threading.get_ident(), torch.get_num_threads()

    with preparing_threads(3) as pool:
        found = [future.result() for future in [pool.submit(wait) for _ in range(3)]]
        assert len({thread for thread, _ in found}) == 3
        assert [number for _, number in found] == [1, 1, 1]
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 2
    assert in_new_thread() == 2


def test_the_threads_end_and_the_number_comes_back_after_an_error():
    ended = []

    def work():
        time.sleep(0.05)
        ended.append(torch.get_num_threads())

    def fail():
        with preparing_threads() as pool:
            pool.submit(work)
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        fail()
    assert ended == [1]
    assert in_new_thread() == 2
