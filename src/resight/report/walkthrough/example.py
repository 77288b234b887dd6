"""The example of a walkthrough: synthetic sightings, and the run without what only saves time or memory."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from resight.config.run import Run
from resight.data.modalities import MODALITIES
from resight.data.sightings import Sighting, SightingTable, Split
from resight.data.synthetic import synthetic
from resight.data.vocabulary import Vocabulary

IDENTITIES: Final = 751
CAMERAS: Final = 6
VIEWS: Final = 8
_QUERIES: Final = 2
_QUERY_CAMERA: Final = "1"
_PLAN: Final = synthetic.Plan(train=2, test=3, cameras=2, shots=1)


@dataclass(frozen=True)
class Example:
    """A training batch's sightings, queries and gallery."""

    split: Split
    """2 identities x 2 cameras for training; 2 queries, and a gallery of 3 sightings of the other camera."""
    vocabulary: Vocabulary
    """The labels of a training set of 751 identities, 6 cameras and 8 views, of which the example has some."""


def make_example(run: Run, folder: Path) -> Example:
    """Paint the example of a recipe.

    Where the network fuses modalities (except by concatenation), some sightings lack one.

    Args:
        run: the recipe.
        folder: a new folder for the images.

    Raises:
        StorageError: the folder cannot be written.
    """
    synthetic.write(folder, _PLAN)
    painted = synthetic.read(folder)
    modalities = MODALITIES if uses_modalities(run) else MODALITIES[:1]
    lacks = run.model.fusion is not None
    train = [_sighting(s, row, modalities, lacks) for row, s in enumerate(painted.train)]
    test = [_sighting(s, row, modalities, lacks) for row, s in enumerate(painted.gallery)]
    query = [s for s in test if s.camera == _QUERY_CAMERA][:_QUERIES]
    gallery = [s for s in test if s.camera != _QUERY_CAMERA]
    split = Split("synthetic", SightingTable.of(train), SightingTable.of(query), SightingTable.of(gallery))
    return Example(split, _vocabulary(train, modalities))


def plain_run(run: Run) -> Run:
    """Return the run on the CPU in float32, with random weights, without what only saves time or memory."""
    plain = run.changed(
        weights=None, device="cpu", precision="fp32", micro_batch_size=None, gradient_checkpointing=False, fsdp=False,
        compile=False, dataset="synthetic", evaluation=type(run.evaluation)(),
    )  # fmt: skip
    return plain.changed(embedding=run.embedding.changed(precision="fp32", batch_size=None))


def uses_modalities(run: Run) -> bool:
    """Return whether the recipe tells modalities apart."""
    return "modality" in run.model.sie or run.model.fusion is not None or run.model.separate_backbones


def _sighting(sighting: Sighting, row: int, modalities: tuple[str, ...], lacks: bool) -> Sighting:
    """A painted sighting with the labels of the example; of every second one the last modality is left out, in turn."""
    absent = modalities[-1 - row // 2 % len(modalities)] if lacks and row % 2 else None
    images = {name: sighting.images[name] for name in modalities if name != absent}
    return replace(sighting, images=images, view=sighting.camera)


def _vocabulary(train: list[Sighting], modalities: tuple[str, ...]) -> Vocabulary:
    known = sorted({sighting.identity or "" for sighting in train})
    others = [f"identity {number}" for number in range(len(known), IDENTITIES)]
    return Vocabulary(
        (*known, *others),
        tuple(str(number + 1) for number in range(CAMERAS)),
        tuple(str(number + 1) for number in range(VIEWS)),
        modalities,
    )
