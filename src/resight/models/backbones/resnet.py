"""ResNets of re-identification: the CNN baseline of the field, and its variants with IBN, non-local blocks and GeM."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from resight.config.sections import Model
from resight.errors import ConfigError
from resight.models.backbones.backbone import Backbone
from resight.models.backbones.layers import number_blocks
from resight.models.backbones.resnet_ibn import RESNETS, ResNetIBN
from resight.models.pooling import Pool

RESNET: Final = "resnet50"
_NEW: Final = ("net.NL_", "net.fc.")
"""What is added to an ImageNet ResNet, by the start of its names."""
_IMAGENET: Final = ("fc.weight", "fc.bias")


class ResNet(Backbone):
    """A ResNet averaged over its last feature map; with `resnet50`, the CNN baseline (Luo et al. 2019).

    Raises:
        ConfigError: the pooling is not possible for a feature map, or an exponent is set without GeM.
    """

    options = frozenset(("pooling", "gem_power", "last_stride", "max_pool"))

    def __init__(self, settings: Model, size: tuple[int, int], counts: Mapping[str, int]) -> None:
        super().__init__()
        pooling = settings.pooling or "mean"
        if pooling not in ("mean", "max", "gem"):
            raise ConfigError(f"model.pooling {pooling} is not possible for {settings.backbone}: use mean, max or gem")
        self.gem_power = settings.gem_power if pooling == "gem" else None
        if self.gem_power is None and settings.gem_power != Model().gem_power:
            raise ConfigError("model.gem_power needs model.pooling gem")
        pool = Pool(pooling, settings.gem_power, trained=True)
        self.net = ResNetIBN(RESNETS[settings.backbone], settings.last_stride, settings.max_pool, pool)
        self.widths = (self.net.width,)
        self.layers = number_blocks(self, r"net\.layer\d\.\d+\.")
        self.depth = max(self.layers.values())

    def forward(self, images: Tensor, side_info: Mapping[str, Tensor]) -> list[Tensor]:
        """Compute the feature of images [R, 3, H, W], in a list: [R, D]. Side information is ignored."""
        return [self.net(images)]

    def adapt(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Give the tensors of a plain ResNet our names, and keep new layers that a file has no tensor of."""
        adapted: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            known = name.startswith("net.") or name in _IMAGENET
            adapted[name if known else f"net.{name}"] = tensor
        for prefix in _NEW:
            if not any(name.startswith(prefix) for name in adapted):
                adapted |= {name: tensor for name, tensor in self.state_dict().items() if name.startswith(prefix)}
        if self.gem_power is not None:
            adapted.setdefault("net.global_pool.gem.p", torch.full((1,), self.gem_power))
        return adapted
