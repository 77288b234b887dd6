"""How fast training is here: pictures a second, end to end and of its parts, and what share of the machine that is."""

import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from resight.bench.plain import PlainTransReID, plain_batch
from resight.config import Run
from resight.loading.augment import augment
from resight.loading.batch import Batch, Loader, Vocabulary
from resight.losses.objective import objective
from resight.recipes import transreid_market, vary
from resight.screen import Screen
from resight.sightings import Sighting, SightingTable
from resight.training.loop import train_step
from resight.training.state import State, start
from resight.training.team import Team

SIZE = (256, 128)
_CLASSES, _CAMERAS, _PICTURES = 100, 6, 256


@dataclass(frozen=True)
class Case:
    """What is trained."""

    backbone: str
    stride: int
    jpm: bool
    batch: int

    @property
    def name(self) -> str:
        """In a few words."""
        return f"{self.backbone.split('_')[1]}, stride {self.stride}, {'JPM' if self.jpm else 'no JPM'}, SIE"


def gemm_rate() -> float:
    """The floor: multiply-adds a second (FLOP/s) of bf16 matrix products of a ViT-B's shapes."""
    rates = list[float]()
    for rows, inner, outer in ((4128, 768, 3072), (4128, 3072, 768), (4128, 768, 2304)):
        a, b = torch.randn(rows, inner).bfloat16(), torch.randn(inner, outer).bfloat16()
        out = torch.empty(rows, outer, dtype=torch.bfloat16)
        rates.append(2 * rows * inner * outer / _seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), 15))
    return max(rates)


def measure_training(case: Case, steps: int) -> list[dict[str, Any]]:
    """Plain and ours, each in a process of its own (for its peak memory), on the same pictures."""
    with TemporaryDirectory() as folder:
        paths = paint(Path(folder), _PICTURES, (64, 128))
        return [_in_process(way, case, paths, steps) for way in (plain_training, our_training)]


def measure_data(source: tuple[int, int], batch: int = 64, batches: int = 8) -> dict[str, float]:
    """Pictures a second of the data path alone, on one core, after the first epoch: plain and ours.

    Args:
        source: width and height of the picture files; 256 x 128 comes out.
        batch: pictures of a batch.
        batches: measured.
    """
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        paths = paint(Path(folder), _PICTURES, source)
        loader, run = _loader(paths), _run(Case("vit_base_patch16_224", 16, False, batch))
        loader.pack()
        rows = [[(n * batch + i) % _PICTURES for i in range(batch)] for n in range(batches)]

        def ours() -> None:
            generator = torch.Generator().manual_seed(0)
            for part in loader.batches(rows):
                augment(part.pictures, run.augmentation, run.pictures.mean, run.pictures.std, generator)

        def plain() -> None:
            for part in rows[:2]:
                plain_batch([paths[row] for row in part], SIZE)

        return {"plain": 2 * batch / _seconds(plain, 3), "ours": batches * batch / _seconds(ours, 3)}


def plain_training(case: Case, paths: list[Path], steps: int) -> dict[str, Any]:
    """float32, SGD, everything of the plain way."""
    model = PlainTransReID(case.backbone, SIZE, case.stride, case.jpm, _CLASSES, _CAMERAS)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    settings = _run(case).loss
    identity, camera = torch.arange(case.batch) // 4, torch.arange(case.batch) % _CAMERAS
    spent = {"data": 0.0, "model": 0.0}

    def step(n: int) -> None:
        began = time.perf_counter()
        pictures = plain_batch([paths[(n * case.batch + i) % len(paths)] for i in range(case.batch)], SIZE)
        loaded = time.perf_counter()
        features, logits = model(pictures, camera)
        optimizer.zero_grad()
        objective(features, logits, identity, settings).total.backward()
        optimizer.step()
        spent["data"], spent["model"] = loaded - began, time.perf_counter() - loaded

    return _measured("plain float32", case, step, spent, steps)


def our_training(case: Case, paths: list[Path], steps: int) -> dict[str, Any]:
    """The library as it is: packed pictures, bf16, the training step itself."""
    run, loader, team = _run(case), _loader(paths), Team(0, 1, torch.device("cpu"))
    loader.pack()
    state = start(run, loader.vocabulary, team, Screen(quiet=True))
    state.model.train()
    rows = [[(n * case.batch + i) % len(paths) for i in range(case.batch)] for n in range(steps + 2)]
    batches, spent = loader.batches(rows), {"data": 0.0, "model": 0.0}
    share = (slice(0, case.batch), case.batch)

    def step(n: int) -> None:
        began = time.perf_counter()
        batch = next(batches)
        loaded = time.perf_counter()
        train_step(run, state, batch, share, team)
        spent["data"], spent["model"] = loaded - began, time.perf_counter() - loaded

    found = _measured("ours", case, step, spent, steps)
    return found | {"flops": _flops(run, state, loader, case)}


def paint(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """Picture files of nothing, as detailed as photographs: JPEG, width x height."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{n:04d}.jpg" for n in range(count)]
    for path in paths:
        coarse = Image.fromarray(rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8))
        pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
        noisy = (pixels + rng.integers(-12, 13, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=90)
    return paths


def _measured(
    name: str, case: Case, step: Callable[[int], None], spent: dict[str, float], steps: int
) -> dict[str, Any]:
    step(0)  # allocates
    data, model = list[float](), list[float]()
    for n in range(1, steps + 1):
        step(n)
        data.append(spent["data"])
        model.append(spent["model"])
    seconds = median(data) + median(model)
    return {
        "way": name,
        "pictures_per_second": case.batch / seconds,
        "data": median(data),
        "model": median(model),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _flops(run: Run, state: State, loader: Loader, case: Case) -> int:
    """Of one step's matrix products, forward and backward, as ours computes them."""
    batch: Batch = next(loader.batches([list(range(case.batch))]))
    with FlopCounterMode(display=False) as counter:
        train_step(run, state, batch, (slice(0, case.batch), case.batch), Team(0, 1, torch.device("cpu")))
    return counter.get_total_flops()


def _run(case: Case) -> Run:
    model = {"backbone": case.backbone, "stride": case.stride, "jpm": case.jpm, "side": ("camera",)}
    return vary(transreid_market(), weights=None, device="cpu", model=model, sampling={"identities": case.batch // 4})


def _loader(paths: list[Path]) -> Loader:
    table = SightingTable.of(
        Sighting({"rgb": path}, f"{n // 4 % _CLASSES:03d}", str(n % _CAMERAS)) for n, path in enumerate(paths)
    )
    return Loader(table, Vocabulary.of(table), SIZE, "bicubic")


def _in_process(way: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(way, arguments)


def _seconds(work: Callable[[], object], runs: int) -> float:
    work()
    found = list[float]()
    for _ in range(runs):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return median(found)
