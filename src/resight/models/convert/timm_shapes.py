"""The timm model that has the tensors of a checkpoint."""

from collections.abc import Mapping, Sequence
from functools import cache

import timm
from torch import Tensor

from resight.errors import CheckpointError, ConfigError
from resight.models.meta import on_meta


def find_timm_name(tensors: Mapping[str, Tensor], names: Sequence[str], family: str) -> str:
    """Return the first timm name whose network has parameters of the same names and shapes.

    Args:
        tensors: parameters and buffers by timm's names, without a classifier.
        names: what to try.
        family: for error messages.

    Raises:
        ConfigError: timm has no model of a name.
        CheckpointError: none has; names the tensors in which the nearest network differs.
    """
    for name in names:
        if not timm.is_model(name):
            raise ConfigError(f"timm has no model named {name}")
    differences: dict[str, list[str]] = {}
    for name in names:
        differences[name] = _differences(tensors, _shapes(name))
        if not differences[name]:
            return name
    name = min(differences, key=lambda name: len(differences[name]))
    listed = differences[name]
    more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
    raise CheckpointError(
        f"the checkpoint is no {family} that is known: {name} is the nearest, and {', '.join(listed[:4])}{more} "
        "are missing or of another shape"
    )


@cache
def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    with on_meta():
        net = timm.create_model(name, num_classes=0)
    return {key: tuple(tensor.shape) for key, tensor in net.named_parameters()}


def _differences(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    return [name for name, shape in shapes.items() if name not in tensors or tuple(tensors[name].shape) != shape]
