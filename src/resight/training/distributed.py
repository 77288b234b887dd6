"""One machine or many: the processes that train together, as torchrun starts them.

Each process has a share of every batch. Triplets are mined, and BatchNorm is taken, over the whole batch: processes
give each other their features, work out the same loss from all of them, and send back through their own backbone what
belongs to their share. Summed over the processes, that is the gradient of one process with the whole batch.
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
    """This process among those that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def local_slice(self, count: int) -> slice:
        """This process's stretch of `count` things."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def wrap(self, backbone: nn.Module) -> nn.Module:
        """The backbone as training calls it; gradients are averaged over the processes as the backward pass goes."""
        if self.size == 1:
            return backbone
        return DistributedDataParallel(backbone, device_ids=None if self.device.type == "cpu" else [self.device])

    def gather(self, own: Tensor) -> Tensor:
        """Every process's rows, in the order of their ranks; these may be different in number. No gradient."""
        if self.size == 1:
            return own.detach()
        counts = [torch.zeros(1, dtype=torch.int64, device=own.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(own)], device=own.device))
        most = max(int(c) for c in counts)
        padded = own.new_zeros(most, *own.shape[1:])
        padded[: len(own)] = own.detach()
        found = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(found, padded)
        return torch.cat([rows[: int(c)] for rows, c in zip(found, counts, strict=True)])

    def of_main(self, value: Any) -> Any:
        """The main process's value, in every process; a small object."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, device=self.device)
        return values[0]

    def barrier(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            dist.barrier()


def initialize(device: str) -> DistributedContext:
    """Joins the processes that torchrun started, or trains alone.

    Raises:
        ConfigError: this machine has no such device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return DistributedContext(0, 1, pick_device(device))
    place = pick_device(device)
    if place.type == "cuda":
        place = pick_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(place)
    if not dist.is_initialized():
        store, rank, size = next(rendezvous("env://"))
        if os.environ.get("GROUP_WORLD_SIZE") == "1":  # torchrun's store lives on: no addresses of processes now gone
            store = dist.PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", store=store, rank=rank, world_size=size)
    return DistributedContext(dist.get_rank(), size, place)


def shut_down() -> None:
    """Ends the joint work, so that no process waits for one that is gone."""
    if dist.is_initialized():
        dist.destroy_process_group()


def restarted() -> bool:
    """Whether torchrun has started this process anew after one was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def embed_distributed(
    distributed: DistributedContext, embedder: Embedder, table: SightingTable, progress: Callable[[int], None]
) -> np.ndarray:
    """Embed a table, each process its part: float32 [N, E] of all of it, in every process."""
    if distributed.size == 1:
        return embedder.embed(table, progress=progress)
    local = distributed.local_slice(len(table))
    rows = embedder.embed(table.take(list(range(local.start, local.stop))), progress=progress)
    parts = [rows] * distributed.size
    dist.all_gather_object(parts, rows)
    return np.concatenate(parts)
