"""Who makes shards: this process, several of this machine, or the workers of a Ray cluster."""

import logging
import multiprocessing
import os
import pickle
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

import torch

from resight.errors import ConfigError
from resight.inference.extract.extract import RunTasks, Task, run_task

_CORES: Final = 4  # of a worker in a cluster without accelerators, where its machine has so many


@contextmanager
def local(processes: int = 1) -> Generator[RunTasks]:
    """This process, or several that have a share of its cores each."""
    if processes <= 1:
        yield lambda works: map(run_task, works)
        return
    threads = max(1, torch.get_num_threads() // processes)
    with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (threads,)) as pool:
        yield lambda works: pool.imap_unordered(run_task, works)


@contextmanager
def ray(address: str) -> Generator[RunTasks]:
    """Workers of a Ray cluster, through Ray Data: as many as it has accelerators, or cores for. Model and pictures must
    lie under the same paths on every machine; shards are handed back, and written here.

    Args:
        address: `HOST:PORT` or `ray://HOST:PORT` of the cluster, or `local` for one on this machine.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster.
    """
    try:
        ray_, data = import_module("ray"), import_module("ray.data")
    except ImportError as error:
        raise ConfigError("a cluster needs Ray: pip install 'resight[ray]'") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers; nothing leaves the machine
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        ray_.init(address=address, log_to_driver=False, logging_level="warning", **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"there is no Ray cluster at {address}: {str(error).splitlines()[0]}") from error
    data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells of every plan and every end
    try:
        yield lambda works: _by_ray(ray_, data, works)
    finally:
        ray_.shutdown()


class _Worker:
    """Makes shards on a machine of the cluster, in batches of one.

    Args:
        threads: of torch.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        number, made = run_task(pickle.loads(batch["work"][0]))
        return {"number": [number], "made": [made]}


def _by_ray(ray_: Any, data: Any, works: list[Task]) -> Iterator[tuple[int, bytes]]:
    """A worker that dies is started anew, and its shard made again by another."""
    machines = [node["Resources"] for node in ray_.nodes() if node["Alive"]]
    gpus = int(sum(held.get("GPU", 0) for held in machines))
    cores = int(max(1, min(_CORES, *(held.get("CPU", 1) for held in machines))))
    count = gpus or sum(int(held.get("CPU", 0)) // cores for held in machines)
    asked = {"num_gpus": 1} if gpus else {"num_cpus": cores}
    items = data.from_items([{"work": pickle.dumps(work)} for work in works], override_num_blocks=max(1, len(works)))
    pool = data.ActorPoolStrategy(min_size=1, max_size=max(1, min(count, len(works))))
    made = items.map_batches(_Worker, fn_constructor_args=(cores,), batch_size=1, compute=pool, **asked)
    for row in made.iter_rows():
        yield int(row["number"]), bytes(row["made"])
