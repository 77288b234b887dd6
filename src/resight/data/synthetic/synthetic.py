"""A synthetic data set: painted persons and vehicles in three registered modalities, in the layout of RGBNT201.

Cameras differ in background, light, colour cast, scale, viewpoint, blur and occlusion. It shows no real person, so it
can be published. The seed determines every image. The hard set has the same objects in conditions such as night and
smoke, in which a modality shows little; `conditions.csv` records the condition of each sighting.
"""

import csv
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from resight.data.readers import rgbnt201
from resight.data.readers.rgbnt201 import MODALITY_FOLDERS
from resight.data.sightings import SightingTable, Split
from resight.data.synthetic.conditions import CONDITIONS, Condition, draw_condition, expose, fade
from resight.data.synthetic.painting import Pose, Traits, draw_traits, paint
from resight.errors import DatasetError
from resight.files import write_folder

CONDITIONS_FILE: Final = "conditions.csv"

_HEIGHT, _WIDTH = 128, 64  # pixels
_OVERSAMPLING = 2  # images are painted at twice the size, then reduced
_SMALL = 8  # identities that are painted before other processes would have started


@dataclass(frozen=True)
class Camera:
    """The constant properties of a camera."""

    ground: np.ndarray
    """float [H, W, 5]: the background in red, green, blue, near-infrared and thermal."""
    gain: np.ndarray
    """float [5]: light of each channel; the first three also give a colour cast."""
    scale: float
    turned: float
    """Factor on the width of objects, from the viewpoint."""
    blur: float
    occluded: float
    """Probability that an obstacle hides a part."""


@dataclass(frozen=True)
class Plan:
    """The size of the data set."""

    train: int = 120
    """Training identities."""
    test: int = 32
    """Test identities."""
    cameras: int = 4
    shots: int = 2
    """Sightings of each identity by each camera."""
    seed: int = 0
    hard: bool = False
    """Whether each sighting is in a condition of `conditions.CONDITIONS`, else all are taken by day."""


def write(
    root: Path, plan: Plan | None = None, painted: Callable[[int, int], None] = lambda count, total: None
) -> None:
    """Paint a data set into a new folder, in one step.

    Args:
        root: the folder; must not exist.
        plan: the size of the data set; None for the default.
        painted: called with the number of identities painted so far, and their total.

    Raises:
        StorageError: the folder cannot be written.
    """
    plan = plan or Plan()

    def fill(folder: Path) -> None:
        for part in ("train_171", "test"):
            for name in MODALITY_FOLDERS.values():
                (folder / part / name).mkdir(parents=True)
        total = plan.train + plan.test
        for count, _ in enumerate(_paint_identities(folder, plan, total), start=1):
            painted(count, total)
        if plan.hard:
            _record_conditions(folder / CONDITIONS_FILE, plan)

    write_folder(root, fill)


def _paint_identities(folder: Path, plan: Plan, total: int) -> Iterator[None]:
    paint_identity = partial(_paint_identity, folder, plan)
    if total <= _SMALL:
        yield from map(paint_identity, range(total))
        return
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        yield from pool.map(paint_identity, range(total), chunksize=8)


def read(root: Path) -> Split:
    """Read a synthetic data set; paint it first if `root` does not exist.

    Raises:
        DatasetError: `root` is another folder.
        StorageError: `root` cannot be written.
    """
    if not root.exists():
        write(root)
    split = rgbnt201.read(root)
    note = "painted by resight; it shows no real person"
    return Split("synthetic", split.train, split.query, split.gallery, (note,))


def read_hard(root: Path) -> Split:
    """Read a hard synthetic data set; paint it first if `root` does not exist.

    The scene of a sighting is its condition.

    Raises:
        DatasetError: `root` is another folder.
        StorageError: `root` cannot be written.
    """
    if not root.exists():
        write(root, Plan(hard=True))
    try:
        with (root / CONDITIONS_FILE).open(newline="") as file:
            condition_of = {row["file"]: row["condition"] for row in csv.DictReader(file)}
    except (OSError, KeyError) as error:
        raise DatasetError(f"{root} is no hard synthetic data set: it has no readable {CONDITIONS_FILE}") from error
    split = read(root)
    query = _with_conditions(split.query, condition_of)
    return replace(
        split, name="synthetic-hard", train=_with_conditions(split.train, condition_of), query=query, gallery=query
    )


def _with_conditions(table: SightingTable, condition_of: dict[str, str]) -> SightingTable:
    return SightingTable.of(replace(s, scene=condition_of.get(s.images["rgb"].name)) for s in table)


def _record_conditions(file: Path, plan: Plan) -> None:
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "condition"])
        for identity in range(plan.train + plan.test):
            for camera in range(plan.cameras):
                for shot in range(plan.shots):
                    rows.writerow([_name(identity, camera, shot), _condition_of(plan, identity, camera, shot)])


def _name(identity: int, camera: int, shot: int) -> str:
    return f"{identity + 1:06d}_cam{camera + 1}_0_{shot:02d}.jpg"


def _condition_of(plan: Plan, identity: int, camera: int, shot: int) -> str:
    return draw_condition(np.random.default_rng((plan.seed, 4, identity, camera, shot))) if plan.hard else "day"


def _paint_identity(folder: Path, plan: Plan, identity: int) -> None:
    traits = draw_traits(np.random.default_rng((plan.seed, 1, identity)))
    part = "train_171" if identity < plan.train else "test"
    for number in range(plan.cameras):
        camera = _draw_camera(np.random.default_rng((plan.seed, 2, number)))
        for shot in range(plan.shots):
            rng = np.random.default_rng((plan.seed, 3, identity, number, shot))
            condition = CONDITIONS[_condition_of(plan, identity, number, shot)]
            for modality, image in _take(traits, camera, rng, condition).items():
                image.save(folder / part / MODALITY_FOLDERS[modality] / _name(identity, number, shot), quality=92)


def _draw_camera(rng: np.random.Generator) -> Camera:
    coarse = rng.uniform(0.15, 0.75, (rng.integers(3, 9), rng.integers(2, 5), 5))
    planes = [
        np.asarray(
            Image.fromarray((255 * coarse[..., i]).astype(np.uint8)).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
        )
        for i in range(5)
    ]
    gain = rng.uniform(0.55, 1.15) * rng.uniform(0.7, 1.2, 5)
    return Camera(
        np.stack(planes, -1) / 255.0,
        gain,
        rng.uniform(0.7, 0.95),
        rng.uniform(0.7, 1.0),
        rng.uniform(0.0, 1.2),
        rng.uniform(0.1, 0.4),
    )


def _take(
    traits: Traits, camera: Camera, rng: np.random.Generator, condition: Condition = CONDITIONS["day"]
) -> dict[str, Image.Image]:
    """One sighting: the same geometry in every modality."""
    height = camera.scale * rng.uniform(0.92, 1.05)
    width = camera.turned * rng.uniform(0.78, 0.98)
    pose = Pose(
        rng.uniform(-0.05, 1.05 - width), rng.uniform(0.0, max(0.02, 1 - height)), width, height,
        rng.uniform(-1, 1), bool(rng.random() < 0.5),
    )  # fmt: skip
    light = rng.uniform(0.85, 1.15)
    shift = rng.integers(-6, 7, 2)  # of the background, in pixels
    is_occluded = rng.random() < camera.occluded
    bar = (rng.uniform(0, 0.8), rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.6, 3), rng.random() < 0.5)
    glare = rng.spawn(1)[0].uniform((0.25, 0.2), (0.75, 0.6))  # a stream of its own leaves the other draws as they are
    images: dict[str, Image.Image] = {}
    for modality, channels in (("rgb", [0, 1, 2]), ("nir", [3, 3, 3]), ("tir", [4, 4, 4])):
        ground = np.roll(camera.ground[..., channels], shift, (0, 1))
        image = Image.fromarray((255 * ground).astype(np.uint8)).resize(
            (_OVERSAMPLING * _WIDTH, _OVERSAMPLING * _HEIGHT)
        )
        draw = ImageDraw.Draw(image)
        paint(draw, traits, pose, modality)
        if is_occluded:
            _paint_bar(draw, *bar, modality)
        image = image.filter(
            ImageFilter.GaussianBlur(_OVERSAMPLING * (camera.blur + (0.4 if modality == "tir" else 0)))
        )
        small = np.asarray(image.resize((_WIDTH, _HEIGHT), Image.Resampling.BOX)) / 255.0
        noise = rng.normal(0, 0.02, (_HEIGHT, _WIDTH, 1 if modality != "rgb" else 3))
        small = fade(small, ground, condition, modality)
        lit = small * camera.gain[channels] * (1 if modality == "tir" else light)
        exposed = expose(lit, condition, modality, (glare[0], glare[1])) + noise
        images[modality] = Image.fromarray((255 * exposed.clip(0, 1)).astype(np.uint8))
    return images


def _paint_bar(
    draw: ImageDraw.ImageDraw, at: float, size: float, look: np.ndarray, upright: bool, modality: str
) -> None:
    """Paint a pole or a rail in front of the object."""
    width, height = _OVERSAMPLING * _WIDTH, _OVERSAMPLING * _HEIGHT
    grey = round(255 * look[0 if modality == "rgb" else 1 if modality == "nir" else 2])
    if upright:
        draw.rectangle((at * width, 0, (at + size) * width, height), fill=(grey, grey, grey))
    else:
        draw.rectangle((0, (0.4 + at / 2) * height, width, (0.4 + (at + size) / 2) * height), fill=(grey, grey, grey))
