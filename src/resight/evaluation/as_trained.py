"""The checkpoint of a run, loaded to compute as the run did."""

from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from resight.config.sections import Precision
from resight.device import Compute, pick_device, processor_kind
from resight.errors import CheckpointError
from resight.inference.embedder import Embedder
from resight.inference.load import load
from resight.progress import Progress


def load_as_trained(
    folder: Path, progress: Progress | None = None, device: str = "auto", precision: Precision | None = None,
    batch_size: int | None = None, **options: Any,
) -> Embedder:  # fmt: skip
    """Load a model folder; the checkpoint of a run computes as that run did, so that its figures come out again.

    Args:
        folder: a model folder, such as `runs/NAME/best`.
        progress: logs where this machine differs from the one that trained; None logs nothing.
        device: as `resight.load` takes it.
        precision: None for the run's.
        batch_size: None for the run's.
        options: other arguments of `resight.load`.
    """
    compute = read_compute(folder.resolve().parent.parent / "compute.json") if folder.exists() else None
    place = pick_device(device)
    if compute is None or torch.device(compute.device).type != place.type:
        return load(folder, device, precision, batch_size=batch_size, **options)
    if compute.processor != processor_kind() and progress is not None:
        progress.log(
            f"the model was trained on a processor with {compute.processor}; on this one ({processor_kind()}) figures "
            "can differ in the last digits"
        )
    torch.set_num_threads(compute.threads)
    return load(folder, device, precision or compute.precision, batch_size=batch_size or compute.batch_size, **options)


def read_compute(file: Path) -> Compute | None:
    """What a run was computed with, from its folder's `compute.json`; None where there is none.

    Raises:
        CheckpointError: it cannot be read.
    """
    if not file.exists():
        return None
    try:
        return TypeAdapter(Compute).validate_json(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{file} does not say what the run is computed with; delete it to have that chosen again"
        ) from error
