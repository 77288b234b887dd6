"""Load weights into a module by name; weights that no model can have are refused."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from resight.errors import CheckpointError

_FLOATS: Final = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_NOT_NEGATIVE: Final = ("running_var", "num_batches_tracked")
_LISTED: Final = 4  # names in a message
LARGEST: Final = 1e10
"""The greatest absolute value of a weight; those of trained models are below 1e6."""


def fit(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    source: object,
    ignored: tuple[str, ...] = (),
    looks_like: str | None = None,
    largest: float = math.inf,
) -> list[str]:
    """Load tensors into a module, by name and strictly.

    Args:
        module: is changed in place; one on the meta device gets tensors of its own on the CPU.
        tensors: by name.
        source: where the tensors come from, for error messages.
        ignored: prefixes of names that the module need not have.
        looks_like: the family of checkpoints that the tensors are typical of, for error messages.
        largest: the greatest absolute value of a number; `LARGEST` for files of other programs.

    Returns:
        the names that were left out, each of which has a prefix in `ignored`.

    Raises:
        CheckpointError: names are missing or unknown, or tensors have another shape or type, or numbers that no model
            has; lists them.
    """
    expected = module.state_dict()
    left_out = [name for name in tensors if name not in expected]
    unexpected = [name for name in left_out if not name.startswith(ignored or ("\0",))]
    missing = [name for name in expected if name not in tensors]
    misshapen = [
        f"{name} is {list(tensors[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    problems = [
        f"{problem}: {shorten(names)}"
        for problem, names in (("of another shape", misshapen), ("missing", missing), ("not known", unexpected))
        if names
    ]
    if len(missing) + len(misshapen) > _LISTED and looks_like is not None:
        problems.append(f"the file looks like {looks_like}")
    if problems:
        raise CheckpointError(f"{source} does not fit the model; {'; '.join(problems)}")
    weights = {name: tensors[name] for name in expected}
    _require_dtype(weights, expected, source)
    is_empty = any(tensor.is_meta for tensor in expected.values())
    if is_empty:
        weights = {name: _copy(tensor, expected[name].dtype) for name, tensor in weights.items()}
    _require_range(weights, source, largest)
    module.load_state_dict(weights, assign=is_empty)
    return left_out


def shorten(names: Sequence[str]) -> str:
    """List the first names, and the number of the others."""
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _copy(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Copy a tensor, so that it shares memory neither with another one nor with a file."""
    return torch.empty(tensor.shape, dtype=dtype).copy_(tensor)


def _require_dtype(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: object) -> None:
    """Refuse complex numbers, and integers where the model has floating-point numbers."""
    wrong = [
        f"{name} is {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in tensors.items()
        if expected[name].is_floating_point() != (tensor.dtype in _FLOATS)
        or tensor.dtype == torch.bool
        or tensor.is_complex()
    ]
    if wrong:
        raise CheckpointError(f"{source} has weights of a type that the model cannot use: {shorten(wrong)}")


def _require_range(tensors: Mapping[str, Tensor], source: object, largest: float) -> None:
    """Refuse numbers that are not finite or too large for any model, and variances and counts below 0."""
    limits = {name: _limits(tensor) for name, tensor in tensors.items()}
    _require_finite(limits, source)
    large = [name for name, (low, high) in limits.items() if max(-low, high) > largest]
    if large:
        raise CheckpointError(f"{source} is corrupt: it has weights above {largest:g}, in {shorten(large)}")
    negative = [name for name, (low, _) in limits.items() if name.endswith(_NOT_NEGATIVE) and low < 0]
    if negative:
        raise CheckpointError(f"{source} is corrupt: it has variances or counts below 0, in {shorten(negative)}")


def require_finite(tensors: Mapping[str, Tensor], source: object) -> None:
    """Refuse tensors with NaN or infinite numbers.

    Args:
        tensors: by name.
        source: where the tensors come from, for error messages.

    Raises:
        CheckpointError: a number is not finite; lists the names.
    """
    _require_finite({name: _limits(tensor) for name, tensor in tensors.items()}, source)


def _require_finite(limits: Mapping[str, tuple[float, float]], source: object) -> None:
    names = [name for name, (low, high) in limits.items() if not math.isfinite(low + high)]
    if names:
        raise CheckpointError(
            f"{source} has weights that are NaN or infinite, in {shorten(names)}: use a checkpoint from before that, "
            "or train again with a lower learning rate"
        )


def _limits(tensor: Tensor) -> tuple[float, float]:
    """Return the lowest and the highest number of a tensor; NaN where it has one. It takes one pass, as a sum does."""
    if not tensor.numel():
        return 0.0, 0.0
    low, high = tensor.aminmax()
    return float(low), float(high)
