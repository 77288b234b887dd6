"""The name of a ResNet, from the names of its tensors."""

from collections.abc import Mapping

from torch import Tensor

from resight.errors import CheckpointError
from resight.models.backbones.resnet_ibn import RESNETS, ResNetLayout
from resight.models.convert.family import require_shape
from resight.models.convert.rules import count_children


def resnet_name(tensors: Mapping[str, Tensor], prefix: str) -> str:
    """Return the name of the ResNet whose tensors have that prefix.

    Raises:
        CheckpointError: the checkpoint does not have the first convolution, or has blocks as no known ResNet.
    """
    require_shape(tensors, f"{prefix}conv1.weight", 4)
    first, second, third, fourth = (count_children(tensors, f"{prefix}layer{stage}.") for stage in range(1, 5))
    extra_1, extra_2, extra_3, extra_4 = (count_children(tensors, f"{prefix}NL_{stage}.") for stage in range(1, 5))
    layout = ResNetLayout(
        blocks=(first, second, third, fourth),
        bottleneck=any(name.startswith(f"{prefix}layer1.0.conv3.") for name in tensors),
        ibn=any(name.startswith(f"{prefix}layer1.0.bn1.IN.") for name in tensors),
        non_local=(extra_1, extra_2, extra_3, extra_4),
        fc=any(name.startswith(f"{prefix}fc.0.") for name in tensors),
    )
    name = next((name for name, known in RESNETS.items() if known == layout), None)
    if name is None:
        extras = f"{'IBN' if layout.ibn else 'no IBN'} and {'a' if layout.fc else 'no'} fully connected layer"
        raise CheckpointError(
            f"the checkpoint has {layout.blocks} residual and {layout.non_local} non-local blocks, {extras}, as none "
            f"of the known ResNets {', '.join(RESNETS)}"
        )
    return name
