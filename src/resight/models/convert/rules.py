"""Renaming by regular expressions, and what checkpoints of convolutional networks have in common."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from resight.config.sections import Preprocessing
from resight.errors import CheckpointError
from resight.models.convert.family import FamilyOptions, Renamed

Rule = tuple[str, str]
"""A regular expression for the start of a name, and what takes its place."""
_COUNT: Final = "num_batches_tracked"
_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)


def rename_by_rules(
    tensors: Mapping[str, Tensor], rules: Sequence[Rule], dropped: Mapping[str, str], family: str
) -> Renamed:
    """Rename tensors by the first rule that fits, and add the counts of batches that old files do not have.

    Args:
        tensors: by the checkpoint's names.
        rules: each applies to names that it fits from their start.
        dropped: reasons, by regular expressions for the start of names that are left out; these come first.
        family: for error messages.

    Raises:
        CheckpointError: a name fits no rule, or two names become one; lists them.
    """
    renamed = Renamed({})
    unexpected: list[str] = []
    for name, tensor in tensors.items():
        reason = next((reason for pattern, reason in dropped.items() if re.match(pattern, name)), None)
        rule = next((rule for rule in rules if re.match(rule[0], name)), None)
        if reason is not None:
            renamed.left_out[name] = reason
        elif rule is None:
            unexpected.append(name)
        else:
            new_name = re.sub("^" + rule[0], rule[1], name)
            if new_name in renamed.tensors:
                raise CheckpointError(f"the checkpoint has two tensors for {new_name}, one of them {name}; remove one")
            renamed.tensors[new_name] = tensor
    if unexpected:
        more = f" and {len(unexpected) - 4} more" if len(unexpected) > 4 else ""
        raise CheckpointError(
            f"the checkpoint has tensors that {family} does not have: {', '.join(unexpected[:4])}{more}"
        )
    for name in list(renamed.tensors):
        count = f"{name.removesuffix('running_var')}{_COUNT}"
        if name.endswith("running_var") and count not in renamed.tensors:
            renamed.tensors[count] = torch.zeros((), dtype=torch.int64)
    return renamed


def count_children(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Count the different numbers that follow a prefix, such as the blocks after `backbone.layer1.`."""
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})


def imagenet_preprocessing(
    options: FamilyOptions, size: tuple[int, int], bicubic: bool = False
) -> tuple[Preprocessing, list[str]]:
    """Return the preprocessing of networks whose images are normalised with ImageNet's mean and deviation.

    Args:
        options: may state the size.
        size: height and width in pixels, where they do not.
        bicubic: whether images are resized by bicubic interpolation, else by bilinear.

    Returns:
        the section, and what was assumed.
    """
    interpolation = "bicubic" if bicubic else "bilinear"
    preprocessing = Preprocessing().changed(
        size=options.get("size", size),
        mean=_MEAN,
        std=_STD,
        train_interpolation=interpolation,
        test_interpolation=interpolation,
    )
    return preprocessing, assumed_size(options, size)


def assumed_size(options: FamilyOptions, size: tuple[int, int]) -> list[str]:
    """Return the sentence that says which size was assumed; none where the options state one."""
    return [] if "size" in options else [f"images of {size[0]}x{size[1]} (--size)"]
