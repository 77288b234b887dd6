"""The measurements of run.py: matrix products, the data path, and training steps, ours and plain."""

import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from plain import PlainTransReID, plain_batch
from timing import median_seconds
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from resight.config.recipes import tiny, transreid_market, vary
from resight.config.run import Run
from resight.config.sections import ResolvedPrecision
from resight.data.augment.augment import augment
from resight.data.loader import Loader
from resight.data.sightings import Sighting, SightingTable
from resight.data.vocabulary import Vocabulary
from resight.device import DTYPES
from resight.losses.objective import objective
from resight.progress import Progress
from resight.training.context import TrainContext
from resight.training.distributed import DistributedContext
from resight.training.state import State, start
from resight.training.step import train_step

T = TypeVar("T")
ModelName = Literal["tiny", "vit-s", "vit-b"]
_BACKBONES = {"vit-s": "vit_small_patch16_224", "vit-b": "vit_base_patch16_224"}
_CLASSES, _CAMERAS, _INSTANCES = 100, 6, 4
_PRODUCTS = ((768, 3072), (3072, 768), (768, 2304))  # inner and outer size: the products of a ViT-B
_STEPS_SECONDS = 60.0  # the steps of one row stop after this time
_FLOPS_BATCH = 8  # sightings of the step whose FLOPs are counted


@dataclass(frozen=True)
class Case:
    """What is trained: `vit-s` and `vit-b` as TransReID on Market-1501 at 256x128, `tiny` as the demo trains it (three
    modalities at 128x64, JPM; patches of 16 side by side)."""

    model: ModelName
    stride: int
    jpm: bool
    batch_size: int
    """Sightings; one of `tiny` has three images."""

    def __str__(self) -> str:
        return f"{self.model}, stride {self.stride}, {'JPM' if self.jpm else 'no JPM'}"

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of each sighting."""
        return ("rgb", "nir", "tir") if self.model == "tiny" else ("rgb",)

    @property
    def images(self) -> int:
        """Images of a batch."""
        return self.batch_size * len(self.modalities)

    def run(self, precision: ResolvedPrecision) -> Run:
        """Return the configuration."""
        model: dict[str, Any] = {"stride": self.stride, "jpm": self.jpm}
        if self.model != "tiny":
            model |= {"backbone": _BACKBONES[self.model], "sie": ("camera",)}
        recipe = tiny() if self.model == "tiny" else transreid_market()
        sampling = {"identities": self.batch_size // _INSTANCES, "instances": _INSTANCES}
        return vary(recipe, weights=None, device="cpu", precision=precision, model=model, sampling=sampling)


@dataclass(frozen=True)
class Measurement:
    """Training steps of one case: medians."""

    images_per_second: float
    """Data included."""
    data_seconds: float
    model_seconds: float
    steps: int
    """Steps that were measured: fewer where they take long."""
    peak_gb: float
    precision: ResolvedPrecision
    flops_per_second: float | None = None
    """Of the model's matrix products; None where they are not counted."""


def in_new_process(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a new process, with as many threads as this one: its peak memory is then its own."""
    with multiprocessing.get_context("spawn").Pool(1, _set_threads, (torch.get_num_threads(),)) as pool:
        return pool.apply(function, arguments)


def product_rate(precision: ResolvedPrecision, max_rows: int) -> float:
    """Return the FLOP/s of matrix products of a ViT-B's shapes: the rate that a training step is compared with.

    The best of all shapes, with weights as they are and transposed, as a linear layer stores them. A short product
    first gives the size of those that are measured, so that this takes seconds on every processor.
    """
    rates = list[float]()
    for inner, outer in _PRODUCTS:
        weights = torch.randn(inner, outer).to(DTYPES[precision])
        for layout in (weights, weights.T.contiguous().T):
            rows = max(1, max_rows // 64)
            seconds = _product_seconds(rows, layout, runs=1)
            rows = max(rows, min(max_rows, int(rows / seconds)))  # what takes about one second
            rates.append(2 * rows * inner * outer / _product_seconds(rows, layout, runs=15))
    return max(rates)


def measure_data(source: tuple[int, int], image_count: int, batch_size: int = 64, batches: int = 8) -> dict[str, float]:
    """Return the images/s of the data path alone on one core, after the first epoch: plain and ours.

    Args:
        source: width and height of the image files, of which 256x128 are made.
        image_count: number of files.
        batch_size: images of a batch.
        batches: number that are measured.
    """
    torch.set_num_threads(1)
    case = Case("vit-b", 16, False, batch_size)
    run = case.run("fp32")
    with TemporaryDirectory() as folder:
        paths = paint(Path(folder), image_count, source)
        loader = make_loader(case, paths)
        loader.pack()
        rows = [[(n * batch_size + i) % image_count for i in range(batch_size)] for n in range(batches)]

        def ours() -> None:
            generator = torch.Generator().manual_seed(0)
            for batch in loader.batches(rows):
                augment(batch.images, run.augmentation, run.preprocessing.mean, run.preprocessing.std, generator)

        def plain() -> None:
            for batch in rows[:2]:
                plain_batch([paths[row] for row in batch], run.preprocessing.size, run.augmentation)

        plain_rate = 2 * batch_size / median_seconds(plain, 3)
        return {"plain": plain_rate, "ours": batches * batch_size / median_seconds(ours, 3)}


def measure_plain(case: Case, paths: list[Path], steps: int) -> Measurement:
    """Measure the plain training: float32 and SGD."""
    run = case.run("fp32")
    modalities = len(case.modalities)
    side_labels = modalities if modalities > 1 else _CAMERAS
    backbone = run.model.backbone
    model = PlainTransReID(backbone, run.preprocessing.size, case.stride, case.jpm, _CLASSES, side_labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    identity = torch.arange(case.batch_size).div(_INSTANCES, rounding_mode="floor").repeat_interleave(modalities)
    modality = torch.arange(case.images) % modalities
    side_label = modality if modalities > 1 else torch.arange(case.images) % _CAMERAS

    def step(n: int) -> tuple[float, float]:
        started = time.perf_counter()
        files = [paths[(n * case.images + i) % len(paths)] for i in range(case.images)]
        images = plain_batch(files, run.preprocessing.size, run.augmentation)
        loaded = time.perf_counter()
        features, logits = model(images, side_label)
        optimizer.zero_grad()
        objective(features, logits, identity, run.loss, modality=modality).total.backward()
        optimizer.step()
        return loaded - started, time.perf_counter() - loaded

    return _measure_steps(case, step, steps, "fp32")


def measure_ours(case: Case, precision: ResolvedPrecision, paths: list[Path], steps: int) -> Measurement:
    """Measure the library's training: packed images, its own training step."""
    run, loader = case.run(precision), make_loader(case, paths)
    loader.pack()
    context, state = make_state(run, loader)
    sightings = len(loader.identity)
    batches = loader.batches(
        [(n * case.batch_size + i) % sightings for i in range(case.batch_size)] for n in range(steps + 1)
    )

    def step(n: int) -> tuple[float, float]:
        started = time.perf_counter()
        batch = next(batches)
        loaded = time.perf_counter()
        train_step(context, state, batch, (slice(0, case.batch_size), case.batch_size))
        return loaded - started, time.perf_counter() - loaded

    measured = _measure_steps(case, step, steps, context.compute.precision)
    flops = _step_flops(context, state, loader) * case.batch_size / _FLOPS_BATCH
    return Measurement(**vars(measured) | {"flops_per_second": flops / measured.model_seconds})


ALONE = DistributedContext(0, 1, torch.device("cpu"))


def make_state(run: Run, loader: Loader) -> tuple[TrainContext, State]:
    """Return a model with random weights and its optimizer, ready to be trained, and their context."""
    context = TrainContext.create(run, loader.vocabulary, ALONE, Progress(quiet=True))
    state = start(context)
    state.model.train()
    return context, state


def make_loader(case: Case, paths: list[Path]) -> Loader:
    """Return a loader of image files, in order one file of each modality a sighting."""
    step = len(case.modalities)
    count = len(paths) // step // _INSTANCES * _INSTANCES
    table = SightingTable.of(
        Sighting(
            dict(zip(case.modalities, paths[n * step : (n + 1) * step], strict=True)),
            f"{n // _INSTANCES % _CLASSES:03d}",
            str(n % _CAMERAS),
        )
        for n in range(count)
    )
    run = case.run("fp32")
    return Loader(table, Vocabulary.of(table), run.preprocessing.size, run.preprocessing.train_interpolation)


def paint(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """Write random JPEG files of width x height, as detailed as photographs."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{n:04d}.jpg" for n in range(count)]
    for path in paths:
        coarse = Image.fromarray(rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8))
        pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
        noisy = (pixels + rng.integers(-12, 13, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=90)
    return paths


def _measure_steps(
    case: Case, step: Callable[[int], tuple[float, float]], steps: int, precision: ResolvedPrecision
) -> Measurement:
    """Run steps, each of which returns its seconds for data and for the model. The first, which allocates, is counted
    only where it takes so long that it is the only one."""
    durations = [step(0)]
    if sum(durations[0]) < _STEPS_SECONDS:
        durations.clear()
        started = time.perf_counter()
        while len(durations) < steps and time.perf_counter() - started < _STEPS_SECONDS:
            durations.append(step(len(durations) + 1))
    data = median(data for data, _ in durations)
    model = median(model for _, model in durations)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Measurement(case.images / (data + model), data, model, len(durations), peak_gb, precision)


def _step_flops(context: TrainContext, state: State, loader: Loader) -> int:
    """Of the matrix products of one small step, forward and backward; they grow in proportion to the batch."""
    batch = next(loader.batches([list(range(_FLOPS_BATCH))]))
    with FlopCounterMode(display=False) as counter:
        train_step(context, state, batch, (slice(0, _FLOPS_BATCH), _FLOPS_BATCH))
    return counter.get_total_flops()


def _product_seconds(rows: int, weights: Tensor, runs: int) -> float:
    x = torch.randn(rows, len(weights)).to(weights.dtype)
    out = torch.empty(rows, weights.shape[1], dtype=weights.dtype)
    return median_seconds(lambda: torch.mm(x, weights, out=out), runs, limit_seconds=1.0)


def _set_threads(count: int) -> None:
    torch.set_num_threads(count)
