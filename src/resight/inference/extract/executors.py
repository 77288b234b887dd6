"""Executors that run the tasks of an extraction: this process, several processes, or a Ray cluster."""

import logging
import os
import pickle
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from resight.errors import ConfigError, require_extra
from resight.inference.extract.tasks import Task, make_shard, store_shard, write_shard
from resight.inference.extract.workers import run_in_processes

_CORES_PER_WORKER: Final = 4  # in a cluster without accelerators; fewer if a machine has fewer


RunTasks = Callable[[Iterator[Task]], Iterator[int]]
"""Writes the shards of tasks, in any order, and gives the number of each when it is complete."""
Log = Callable[[str], None]


def executor_of(workers: int, address: str | None, log: Log) -> AbstractContextManager[RunTasks]:
    """Return the executor: a Ray cluster if there is an address, else this machine."""
    return local(workers, log) if address is None else ray(address)


@contextmanager
def local(workers: int, log: Log) -> Generator[RunTasks]:
    """Run tasks in this process, or in several processes of this machine that divide its cores.

    Args:
        workers: number of processes; 1 for this process.
        log: is called with a sentence for each process that dies.
    """
    if workers == 1:
        yield lambda tasks: map(write_shard, tasks)
        return
    with ExitStack() as stack:

        def run(tasks: Iterator[Task]) -> Iterator[int]:
            return stack.enter_context(closing(run_in_processes(tasks, workers, log)))

        yield run


@contextmanager
def ray(address: str) -> Generator[RunTasks]:
    """Run tasks on a Ray cluster, through Ray Data, with one worker for each accelerator, or for every four cores.

    The model and the images must have the same paths on every machine. Workers return shards, which are written here.

    Args:
        address: `HOST:PORT` or `ray://HOST:PORT` of the cluster, or `local` for one on this machine.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster.
    """
    ray_ = require_extra("ray", "ray")
    data = require_extra("ray.data", "ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no data leaves the machine
    local_options = {"include_dashboard": False} if address == "local" else {}
    try:
        ray_.init(address=address, log_to_driver=False, logging_level="warning", **local_options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"there is no Ray cluster at {address}: {str(error).splitlines()[0]}") from error
    data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # without it Ray logs every plan
    try:
        yield partial(_run_on_ray, ray_, data)
    finally:
        ray_.shutdown()


class _Worker:
    """Runs tasks on a machine of the cluster, in batches of one.

    Args:
        threads: number of threads of torch.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        task: Task = pickle.loads(batch["task"][0])
        return {"number": [task.number], "shard": [make_shard(task)]}


def _run_on_ray(ray_: Any, data: Any, tasks: Iterator[Task]) -> Iterator[int]:
    """Ray replaces a worker that dies, and runs its task again."""
    resources = [node["Resources"] for node in ray_.nodes() if node["Alive"]]
    gpus = int(sum(machine.get("GPU", 0) for machine in resources))
    cores = int(max(1, min(_CORES_PER_WORKER, *(machine.get("CPU", 1) for machine in resources))))
    workers = gpus or sum(int(machine.get("CPU", 0)) // cores for machine in resources)
    required = {"num_gpus": 1} if gpus else {"num_cpus": cores}
    paths, entries = dict[int, Path](), list[dict[str, bytes]]()
    for task in tasks:
        paths[task.number] = task.path
        entries.append({"task": pickle.dumps(task)})
    items = data.from_items(entries, override_num_blocks=max(1, len(entries)))
    pool = data.ActorPoolStrategy(min_size=1, max_size=max(1, min(workers, len(entries))))
    shards = items.map_batches(_Worker, fn_constructor_args=(cores,), batch_size=1, compute=pool, **required)
    for row in shards.iter_rows():
        number = int(row["number"])
        store_shard(paths[number], bytes(row["shard"]))
        yield number
