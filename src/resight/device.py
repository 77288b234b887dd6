"""Where and how a network is computed: the device, the precision, the threads, and the memory of large arrays.

Nothing here is tuned for one machine: a choice is either measured in this process, or follows a rule that stands
beside it with the measurement it came from.
"""

import ctypes
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

import torch
from torch import nn

from resight.config.sections import Precision, ResolvedPrecision
from resight.errors import ConfigError

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FORMED_TOKENS: Final = 256
"""The longest sequence whose attention weights are formed; see `forms_attention`."""
_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # parameters of mallopt, from malloc.h
_WORTH_IT: Final = 0.9  # bf16 must take less than this share of float32's time
_HOPELESS: Final = 5.0  # in a first short trial: bf16 takes this many times float32's time, and is not tried further


@dataclass(frozen=True)
class Compute:
    """What a run computes with: every `auto` of its configuration, resolved on this machine."""

    device: str
    processor: str
    """The kind of CPU, which the other choices depend on: see `processor_kind`."""
    precision: ResolvedPrecision
    threads: int
    attention: Literal["formed", "fused"]
    """Of training: whether attention weights are formed (see `forms_attention`)."""
    batch_size: int
    """Images that are embedded at once."""

    def describe(self, size: tuple[int, int], batch_size: int | None = None) -> str:
        """One line for the beginning of a run: device, kind of processor, precision, image size and batch size."""
        where = f"{self.device} ({self.processor}, {self.threads} threads)" if self.device == "cpu" else self.device
        return f"{where}, {self.precision}; images of {size[0]}x{size[1]}, batches of {batch_size or self.batch_size}"


def resolve_compute(
    device: torch.device, precision: Precision, batch_size: int | None = None, training: bool = False
) -> Compute:
    """Resolve every `auto` for this machine.

    Args:
        device: where the network is.
        precision: as configured; `auto` is measured.
        batch_size: images that are embedded at once; None for the device's default.
        training: whether gradients are computed.
    """
    configure_process()
    resolved = best_precision(device, training) if precision == "auto" else precision
    formed = forms_attention(device, DTYPES[resolved], 1)
    return Compute(
        str(device),
        processor_kind(),
        resolved,
        torch.get_num_threads(),
        "formed" if formed else "fused",
        batch_size or default_batch_size(device),
    )


def pick_device(name: str) -> torch.device:
    """Return the device of that name; for `auto` the best there is.

    Raises:
        ConfigError: this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"this machine has no device {name!r} that torch {torch.__version__} can use") from error
    return device


def autocast(device: torch.device, precision: ResolvedPrecision) -> torch.autocast:
    """Return the context in which matrix products are computed in that precision."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")


def best_precision(device: torch.device, training: bool = False) -> ResolvedPrecision:
    """Return what `auto` means on a device.

    A CPU uses bf16 only where an autocast layer was measured to be faster than a float32 one in this process. A CUDA
    device uses bf16 where the card computes it; an older one fp16 for inference, and fp32 for training, since fp16
    gradients need a loss scale. Every other device uses fp32.
    """
    if device.type == "cpu":
        return "bf16" if bf16_layer_is_faster() else "fp32"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp32" if training else "fp16"
    return "fp32"


@cache
def bf16_layer_is_faster() -> bool:
    """Whether a linear layer under bf16 autocast, forward and backward, is faster on this CPU than in float32.

    Measured once per process, in 0.1 to 0.3 s: without fast bf16 a layer takes 10 to 100 times as long, which a short
    first trial shows.
    """

    def layer(size: int, precision: ResolvedPrecision) -> Callable[[], object]:
        linear = nn.Linear(384, size)
        images = torch.ones(size // 3, 384, requires_grad=True)

        def step() -> None:
            with autocast(torch.device("cpu"), precision):
                out = linear(images)
            out.float().sum().backward()

        return step

    return _bf16_is_faster(layer, 192, 1536)


@cache
def bf16_product_is_faster() -> bool:
    """Whether a bf16 matrix product alone is faster on this CPU than a float32 one; ranking follows it. Measured once
    per process."""

    def product(size: int, precision: ResolvedPrecision) -> Callable[[], object]:
        a, b = (torch.ones(n, 512, dtype=DTYPES[precision]) for n in (size // 8, size))
        return lambda: torch.mm(a, b.T)

    return _bf16_is_faster(product, 128, 2048)


def _bf16_is_faster(make: Callable[[int, ResolvedPrecision], Callable[[], object]], small: int, large: int) -> bool:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for one another where other work runs, and hide what the products take
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng([]):
            bf16, fp32 = _shortest_seconds((make(small, "bf16"), make(small, "fp32")), 4)
            if bf16 > _HOPELESS * fp32:
                return False
            bf16, fp32 = _shortest_seconds((make(large, "bf16"), make(large, "fp32")), 6)
            return bf16 < _WORTH_IT * fp32
    finally:
        torch.set_num_threads(threads)


def _shortest_seconds(works: Sequence[Callable[[], object]], runs: int) -> list[float]:
    """The shortest run of each, after one that is not counted; in turn, so that other load slows down all of them."""
    shortest = [math.inf] * len(works)
    for run in range(runs + 1):
        for n, work in enumerate(works):
            began = time.perf_counter()
            work()
            if run:
                shortest[n] = min(shortest[n], time.perf_counter() - began)
    return shortest


def forms_attention(device: torch.device, dtype: torch.dtype, tokens: int) -> bool:
    """Whether attention with a backward pass is faster through [B, h, T, T] weights than through the fused kernel.

    In 16 bits on a CPU it is, up to `FORMED_TOKENS`; in float32 the fused kernel is 1.6 to 2.8 times as fast (measured
    by benchmarks/training/attention.py). The rule is fixed, so that runs of one precision have the same arithmetic.
    """
    return device.type == "cpu" and dtype != torch.float32 and tokens <= FORMED_TOKENS


def default_batch_size(device: torch.device) -> int:
    """Images that are embedded at once: 32 on a CPU, where larger batches leave the cache and gain nothing
    (benchmarks/inference), and 512 on an accelerator, which is halved for as long as its memory does not suffice."""
    return 32 if device.type == "cpu" else 512


@cache
def processor_kind() -> str:
    """The kind of CPU as torch uses it, the limits in ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY included: `AMX`,
    `AVX-512 with bf16`, `AVX-512`, `AVX2`, or the architecture's name."""
    has = torch.cpu.get_capabilities()
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    narrow = limit in ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2")
    if wide and has.get("amx_bf16") and ("AMX" in limit or limit in ("ALL", "DEFAULT") or limit.startswith("AVX10")):
        return "AMX"
    if wide and has.get("avx512_bf16") and not narrow and limit not in ("AVX512_CORE", "AVX512_CORE_VNNI"):
        return "AVX-512 with bf16"
    if wide and not narrow:
        return "AVX-512"
    return "AVX2" if has.get("avx2") else platform.machine()


def available_cores() -> int:
    """CPU cores that this process may use: those it is bound to, within the container's quota (at least 1)."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return max(1, min(bound, bound if quota is None else math.ceil(quota)))


def cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPU cores that the container's control group allows (version 2, or 1); None where there is no limit."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return None if int(limit) < 0 else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def configure_process() -> None:
    """Prepare this process for heavy work: keep the memory of large arrays, and use no more threads than there are
    cores. `OMP_NUM_THREADS` and an earlier, lower `torch.set_num_threads` are respected."""
    retain_memory()
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > available_cores():
        torch.set_num_threads(available_cores())


@cache
def retain_memory() -> bool:
    """Let glibc keep the memory of large arrays instead of returning it to the system each time.

    A training step allocates the same gigabytes as the step before. Returned, they come back as fresh pages that the
    system zeroes one by one: a tenth of a step and more. The peak of the process stays what it was.

    Returns:
        whether that was done; False where the C library is another one.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_MAX, 0)) and bool(libc.mallopt(_TRIM_THRESHOLD, -1))
