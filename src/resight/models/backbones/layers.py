"""The layers of our own networks, for layer-wise decay."""

import re

from torch import nn


def number_blocks(module: nn.Module, pattern: str) -> dict[str, int]:
    """Number a network's blocks from 1, in the order in which they are registered.

    Args:
        module: its parameters before the first block are of layer 0, those after a block are of that block's layer.
        pattern: a regular expression for the start of a parameter's name, up to the number of its block.

    Returns:
        the layer of each parameter, by its name.
    """
    numbers: dict[str, int] = {}
    number = 0
    current = ""
    for name, _ in module.named_parameters():
        match = re.match(pattern, name)
        if match is not None and match[0] != current:
            current = match[0]
            number += 1
        numbers[name] = number
    return numbers
