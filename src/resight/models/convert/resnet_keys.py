"""The structure of a ResNet, from the names of its tensors."""

from collections.abc import Mapping

from torch import Tensor

from resight.models.backbones.resnet_ibn import ResNetLayout
from resight.models.convert.family import require_shape
from resight.models.convert.rules import count_children


def layout_of(tensors: Mapping[str, Tensor], prefix: str) -> ResNetLayout:
    """Return the structure of the ResNet whose names have that prefix.

    Raises:
        CheckpointError: the checkpoint does not have the first convolution.
    """
    require_shape(tensors, f"{prefix}conv1.weight", 4)
    first, second, third, fourth = (count_children(tensors, f"{prefix}layer{stage}.") for stage in range(1, 5))
    extra_1, extra_2, extra_3, extra_4 = (count_children(tensors, f"{prefix}NL_{stage}.") for stage in range(1, 5))
    return ResNetLayout(
        blocks=(first, second, third, fourth),
        bottleneck=f"{prefix}layer1.0.conv3.weight" in tensors,
        ibn=f"{prefix}layer1.0.bn1.IN.weight" in tensors,
        non_local=(extra_1, extra_2, extra_3, extra_4),
        fc=f"{prefix}fc.0.weight" in tensors,
    )
