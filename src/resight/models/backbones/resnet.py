"""ResNets of re-identification: the CNN baseline of the field, and its variants with IBN, non-local blocks and GeM."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from resight.config.sections import Model
from resight.errors import ConfigError
from resight.models.backbones.backbone import Backbone
from resight.models.backbones.resnet_ibn import RESNETS, ResNetIBN
from resight.models.pooling import GeM

RESNET: Final = "resnet50"
_NEW: Final = ("net.NL_", "net.fc.")
"""What is added to an ImageNet ResNet, by the start of its names."""
_IMAGENET: Final = ("fc.weight", "fc.bias")


class MapPool(nn.Module):
    """The mean over positions, or the generalised mean with a trained exponent.

    Args:
        gem_power: the exponent at first; None for the mean.
    """

    def __init__(self, gem_power: float | None) -> None:
        super().__init__()
        self.gem = None if gem_power is None else GeM(gem_power, trained=True)

    def forward(self, x: Tensor) -> Tensor:
        """Pool [B, N, D] over the N positions: [B, D]."""
        if self.gem is None:
            return x.mean(1)
        with torch.autocast(x.device.type, enabled=False):  # powers need float32
            return self.gem(x.float())


class ResNet(Backbone):
    """A ResNet averaged over its last feature map; with `resnet50`, the CNN baseline (Luo et al. 2019).

    Raises:
        ConfigError: the pooling is neither the mean nor GeM.
    """

    options = frozenset(("pooling", "gem_power", "last_stride", "max_pool"))

    def __init__(self, settings: Model, size: tuple[int, int], counts: Mapping[str, int]) -> None:
        super().__init__()
        if settings.pooling not in (None, "mean", "gem"):
            raise ConfigError(f"model.pooling {settings.pooling} is not possible for a ResNet: use mean or gem")
        self.gem_power = settings.gem_power if settings.pooling == "gem" else None
        pool = MapPool(self.gem_power)
        self.net = ResNetIBN(RESNETS[settings.backbone], settings.last_stride, settings.max_pool, pool)
        self.widths = (self.net.width,)

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
