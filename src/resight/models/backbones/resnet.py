"""ResNet-50, the CNN baseline of the field."""

from collections.abc import Mapping
from typing import Any, Final, cast

import timm
from torch import Tensor

from resight.config.sections import Model
from resight.models.backbones.backbone import Backbone

RESNET: Final = "resnet50"


class ResNet50(Backbone):
    """The CNN baseline (Luo et al. 2019): a ResNet-50 whose last stage has stride 1, averaged over its feature map."""

    widths = (2048,)

    def __init__(self, settings: Model, size: tuple[int, int], counts: Mapping[str, int]) -> None:
        super().__init__()
        self.net = cast(Any, timm.create_model("resnet50", num_classes=0))
        self.net.layer4[0].conv2.stride = (1, 1)
        self.net.layer4[0].downsample[0].stride = (1, 1)

    def forward(self, images: Tensor, side_info: Mapping[str, Tensor]) -> list[Tensor]:
        """Compute the feature of images [R, 3, H, W], in a list: [R, 2048]. Side information is ignored."""
        return [self.net(images)]

    def adapt(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Give the tensors of a plain ResNet-50 our names."""
        return {name if name.startswith("net.") else f"net.{name}": tensor for name, tensor in tensors.items()}
