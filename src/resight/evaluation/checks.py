"""Checks before a long computation: corrupt pictures, and queries that nothing can match."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from resight.config.run import Run
from resight.config.sections import Evaluation, Precision
from resight.data.image import corrupt
from resight.data.sightings import SightingTable, Split
from resight.device import pick_device, processor_kind, read_compute
from resight.errors import DatasetError, PictureError
from resight.evaluation.evaluate import measured_by
from resight.evaluation.labels import encode_labels
from resight.inference.embedder import Embedder, load
from resight.progress import Progress
from resight.retrieval.trials import require_any_match


def prepare(run: Run, split: Split, progress: Progress) -> Split:
    """Checks a data set for training, and leaves out what has no identity and, where the run says so, what is damaged.

    Raises:
        DatasetError: there is nothing to train on.
        EvaluationError: no query has a match.
        PictureError: a picture is damaged and is not to be skipped.
    """
    checked, notes = without_corrupt(split, run.on_corrupt, progress)
    learned = checked.train.of_identities(checked.train.values("identity"))
    if not len(learned):
        raise DatasetError(f"{split.name} has no training picture of a known identity")
    if len(learned) < len(checked.train):
        notes = (*notes, f"{len(checked.train) - len(learned)} training sightings of nobody known are left out")
    require_match(checked, run.evaluation)
    return replace(checked, train=learned, notes=(*checked.notes, *notes))


def without_corrupt(
    split: Split, policy: Literal["error", "skip"], progress: Progress
) -> tuple[Split, tuple[str, ...]]:
    """The split without sightings that have a damaged picture, and a note for each such picture.

    Raises:
        PictureError: there is one, and the policy is to refuse it.
    """
    files = sorted({path for part in (split.train, split.query, split.gallery) for path in part.paths})
    progress.start("checking pictures", len(files))
    faults = corrupt(files, progress.update)
    if not faults:
        return split, ()
    if policy == "error":
        more = f" ({len(faults)} pictures are damaged in all)" if len(faults) > 1 else ""
        raise PictureError(f"{faults[0][1]}{more}; mend it, or leave such pictures out with --on-corrupt skip")
    bad = {path for path, _ in faults}
    train, query = _without(split.train, bad), _without(split.query, bad)
    gallery = query if split.gallery is split.query else _without(split.gallery, bad)
    notes = (*(f"skipped: {reason}" for _, reason in faults), f"{len(faults)} damaged pictures skipped")
    return replace(split, train=train, query=query, gallery=gallery), notes


def require_match(split: Split, settings: Evaluation) -> None:
    """Makes sure that at least one query can be answered, before anything is embedded.

    Raises:
        ConfigError: there is no such protocol.
        EvaluationError: none can; says which rule removed what.
    """
    require_any_match(*measured_by(settings, split.protocol), *encode_labels(split.query, split.gallery))


def _without(table: SightingTable, bad: set[Path]) -> SightingTable:
    return table.take([row for row, sighting in enumerate(table) if not bad & set(sighting.images.values())])


def checked_for_evaluation(
    split: Split, settings: Evaluation, policy: Literal["error", "skip"], progress: Progress
) -> Split:
    """A data set without its training part, and without sightings that are corrupt; logs its notes.

    Raises:
        EvaluationError: no query has a match.
        PictureError: a picture is corrupt, and the policy is `error`.
    """
    split, skipped = without_corrupt(replace(split, train=SightingTable()), policy, progress)
    require_match(split, settings)
    for note in (*split.notes, *skipped):
        progress.log(note)
    return split


def load_as_trained(
    folder: Path, progress: Progress, device: str = "auto", precision: Precision | None = None,
    batch_size: int | None = None, **given: Any,
) -> Embedder:  # fmt: skip
    """Load a model folder; the checkpoint of a run computes as that run did, so that its figures come out again.

    Args:
        folder: a model folder, such as `runs/NAME/best`.
        progress: logs where this machine differs from the one that trained.
        device: as `resight.load` takes it.
        precision: None for the run's.
        batch_size: None for the run's.
        given: other arguments of `resight.load`.
    """
    compute = read_compute(folder.resolve().parents[1] / "compute.json") if folder.exists() else None
    place = pick_device(device)
    if compute is None or torch.device(compute.device).type != place.type:
        return load(folder, device, precision, batch_size=batch_size, **given)
    if compute.processor != processor_kind():
        progress.log(
            f"the model was trained on a processor with {compute.processor}; on this one ({processor_kind()}) figures can "
            "differ in the last digits"
        )
    torch.set_num_threads(compute.threads)
    return load(folder, device, precision or compute.precision, batch_size=batch_size or compute.batch_size, **given)
