"""Distributed training on one or several machines, with the processes that torchrun starts.

Each process embeds a slice of every batch. Triplets are mined, and BatchNorm is computed, over the whole batch: the
processes gather all features, compute the same loss from them, and propagate the gradient of their own slice back
through their backbone. The sum over the processes equals the gradient of one process with the whole batch.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from resight.data.sightings import SightingTable
from resight.device import pick_device
from resight.inference.embedder import Embedder


@dataclass(frozen=True)
class DistributedContext:
    """The rank and device of this process, and the communication with the others."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def local_slice(self, count: int) -> slice:
        """Return this process's slice of `count` items."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def wrap(self, backbone: nn.Module) -> nn.Module:
        """Wrap the backbone for training: the backward pass averages gradients over the processes."""
        if self.size == 1:
            return backbone
        return DistributedDataParallel(backbone, device_ids=None if self.device.type == "cpu" else [self.device])

    def gather(self, local: Tensor) -> Tensor:
        """Concatenate the rows of all processes, in the order of the ranks, without gradient.

        Args:
            local: this process's rows; the processes may have different numbers of rows.
        """
        if self.size == 1:
            return local.detach()
        counts = [torch.zeros(1, dtype=torch.int64, device=local.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(local)], device=local.device))
        max_count = max(int(count) for count in counts)
        padded = local.new_zeros(max_count, *local.shape[1:])  # [max_count, ...]
        padded[: len(local)] = local.detach()
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(gathered, padded)
        return torch.cat([rows[: int(count)] for rows, count in zip(gathered, counts, strict=True)])

    def of_main(self, value: Any) -> Any:
        """Return the main process's value, a small object, in every process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, device=self.device)
        return values[0]

    def barrier(self) -> None:
        """Wait until every process has called this."""
        if self.size > 1:
            dist.barrier()


def initialize(device: str) -> DistributedContext:
    """Join the process group that torchrun started; without torchrun, return a context of one process.

    Args:
        device: `cpu`, `cuda`, `mps`, or `auto`.

    Raises:
        ConfigError: this machine does not have the device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return DistributedContext(0, 1, pick_device(device))
    local_device = pick_device(device)
    if local_device.type == "cuda":
        local_device = pick_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(local_device)
    if not dist.is_initialized():
        store, rank, size = next(rendezvous("env://"))
        if (
            os.environ.get("GROUP_WORLD_SIZE") == "1"
        ):  # torchrun's store survives a restart: ignore addresses of ended processes
            store = dist.PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # pyright: ignore[reportPrivateImportUsage]
        backend = "nccl" if local_device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    return DistributedContext(dist.get_rank(), size, local_device)


def shut_down() -> None:
    """Leave the process group, so that no process waits for one that has ended."""
    if dist.is_initialized():
        dist.destroy_process_group()


def restarted() -> bool:
    """Return whether torchrun has restarted this process after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def embed_distributed(
    distributed: DistributedContext, embedder: Embedder, table: SightingTable, progress: Callable[[int], None]
) -> np.ndarray:
    """Embed a table, each process a slice of it.

    Returns:
        float32 [N, E], the embeddings of the complete table, in every process.
    """
    if distributed.size == 1:
        return embedder.embed(table, progress=progress)
    local = distributed.local_slice(len(table))
    rows = embedder.embed(table.take(list(range(local.start, local.stop))), progress=progress)
    slices = [rows] * distributed.size
    dist.all_gather_object(slices, rows)
    return np.concatenate(slices)
