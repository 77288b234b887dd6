"""What timm says about its networks: how they are built, and which layer a parameter is of."""

from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import timm
import torch
from timm.models._manipulate import group_parameters
from torch import Tensor, nn

from resight.errors import ConfigError
from resight.models.meta import on_meta


def layer_numbers(net: nn.Module) -> dict[str, int]:
    """Number the layers of a timm network by its own grouping, for layer-wise decay: 0 for the stem, by parameter."""
    grouped = group_parameters(net, cast(Any, net).group_matcher(coarse=False), reverse=True)
    numbers = cast("dict[str, int]", grouped)
    return {f"net.{name}": number for name, number in numbers.items()}


def create_net(name: str, size: tuple[int, int], drop_path: float, global_pool: str) -> Any:
    """Create a timm network without a classifier, with the options of these that it has.

    Raises:
        ConfigError: it cannot be built for images of that size.
    """
    options: dict[str, Any] = {"img_size": size, "drop_path_rate": drop_path, "global_pool": global_pool}
    while True:
        try:
            return timm.create_model(name, num_classes=0, **options)
        except TypeError as error:
            excluded = next((option for option in options if repr(option) in str(error)), None)
            if excluded is None:
                raise
            del options[excluded]
        except (AssertionError, ValueError, RuntimeError) as error:
            raise ConfigError(_no_fit(name, size, error)) from error


@cache
def map_shape(name: str, size: tuple[int, int], global_pool: str) -> tuple[int, ...]:
    """Compute the shape of a network's feature map or tokens for one image, without memory: nothing is multiplied.

    Raises:
        ConfigError: the network cannot take images of that size, or gives neither a map nor tokens.
    """
    with on_meta():
        net = create_net(name, size, 0.0, global_pool).eval()
    with torch.device("meta"), torch.no_grad():
        try:
            features = net.forward_features(torch.empty(1, 3, *size))
        except Exception as error:  # timm's networks raise exceptions of many types
            raise ConfigError(_no_fit(name, size, error)) from error
    if not isinstance(features, torch.Tensor) or features.ndim not in (3, 4):
        raise ConfigError(f"{name} gives neither one feature map nor tokens, so it cannot be a backbone")
    return tuple(features.shape)


def _no_fit(name: str, size: tuple[int, int], error: Exception) -> str:
    reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
    return f"{name} cannot take images of {size[0]}x{size[1]}: {reason}"


def with_prefix(tensors: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """Give the tensors of timm's network the names of a backbone that has it as `net`.

    The last norm is renamed where it comes after pooling in one of them and before it in the other.
    """
    expected = backbone.state_dict()
    renamed = {f"net.{name}" if f"net.{name}" in expected else name: tensor for name, tensor in tensors.items()}
    for theirs, ours in (("fc_norm.", "net.norm."), ("norm.", "net.fc_norm.")):
        for kind in ("weight", "bias"):
            if theirs + kind in renamed and ours + kind in expected and ours + kind not in renamed:
                renamed[ours + kind] = renamed.pop(theirs + kind)
    return renamed
