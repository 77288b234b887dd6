"""The backbone that a configuration names."""

from collections.abc import Mapping

import timm

from resight.config.sections import Model
from resight.errors import ConfigError, unknown
from resight.models.backbones.resnet import RESNET, ResNet50
from resight.models.backbones.vit import COMMON, LEGACY_SMALL, ViT


def require_backbone(name: str) -> None:
    """Check that a backbone of that name exists.

    Raises:
        ConfigError: there is no such backbone; lists common ones.
    """
    if name not in (RESNET, LEGACY_SMALL) and not timm.is_model(name):
        raise unknown("backbone", name, [RESNET, LEGACY_SMALL, *COMMON, "and every other plain ViT of timm"])


def build_backbone(settings: Model, size: tuple[int, int], counts: Mapping[str, int]) -> ViT | ResNet50:
    """Build the backbone that the configuration names, with random weights.

    Args:
        settings: the model's section of the configuration.
        size: height and width of the images in pixels.
        counts: number of known labels of each kind of side information.

    Raises:
        ConfigError: the backbone is unknown or not a plain ViT, or an option excludes it.
    """
    if settings.backbone != RESNET:
        return ViT(settings, size, counts)
    if settings.jpm or settings.sie or settings.stride:
        raise ConfigError(f"jpm, sie and stride need a vision transformer; {RESNET} has neither tokens nor patches")
    return ResNet50()
