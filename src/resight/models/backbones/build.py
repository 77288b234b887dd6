"""The backbone that a configuration names."""

from collections.abc import Mapping

from resight.config.sections import Model
from resight.errors import ConfigError
from resight.models.backbones.resnet import RESNET, ResNet50
from resight.models.backbones.vit import ViT


def build_backbone(settings: Model, size: tuple[int, int], counts: Mapping[str, int]) -> ViT | ResNet50:
    """Builds the backbone that the configuration names, with random weights.

    Raises:
        ConfigError: the name is not known, or is no plain ViT, or an option does not go with it.
    """
    if settings.backbone != RESNET:
        return ViT(settings, size, counts)
    if settings.jpm or settings.sie or settings.stride:
        raise ConfigError(f"jpm, side and stride need a vision transformer; {RESNET} has neither tokens nor patches")
    return ResNet50()
