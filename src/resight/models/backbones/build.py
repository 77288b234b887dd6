"""The backbone that a configuration names."""

from collections.abc import Mapping
from typing import Final

import timm
from timm.models.eva import Eva as TimmEva

from resight.config.sections import Model
from resight.errors import ConfigError, unknown
from resight.models.backbones.backbone import Backbone
from resight.models.backbones.clip_resnet import CLIP_RESNETS, ClipResNet
from resight.models.backbones.eva import Eva
from resight.models.backbones.osnet import OSNETS, OSNet
from resight.models.backbones.per_modality import PerModality
from resight.models.backbones.plain import COMMON, LEGACY_SMALL, empty_net, is_plain
from resight.models.backbones.resnet import ResNet
from resight.models.backbones.resnet_ibn import RESNETS
from resight.models.backbones.solider import SOLIDER_SWINS, SoliderSwin
from resight.models.backbones.timm_net import TimmNet
from resight.models.backbones.vit import ViT

_NAMED: Final[Mapping[str, type[Backbone]]] = {
    LEGACY_SMALL: ViT,
    **dict.fromkeys(RESNETS, ResNet),
    **dict.fromkeys(OSNETS, OSNet),
    **dict.fromkeys(SOLIDER_SWINS, SoliderSwin),
    **dict.fromkeys(CLIP_RESNETS, ClipResNet),
}
"""The backbones that have a name of ours; each class is made by `Class(settings, size, counts)`."""
_EXAMPLES: Final = ("resnet50", "osnet_x1_0", "solider_swin_small", "clip_rn50", LEGACY_SMALL)
_COMMON_OPTIONS: Final = frozenset(
    ("backbone", "head", "head_scale", "head_margin", "feature", "fusion", "separate_backbones")
)
_TRANSFORMER: Final = ("jpm", "sie", "stride")


def require_backbone(name: str) -> None:
    """Check that a backbone of that name exists.

    Raises:
        ConfigError: there is no such backbone; lists common ones.
    """
    if name not in _NAMED and not timm.is_model(name):
        raise unknown("backbone", name, [*_EXAMPLES, *COMMON, "and others (docs/backbones.md)"])


def backbone_class(name: str) -> type[Backbone]:
    """Return the class of the backbone of that name.

    Raises:
        ConfigError: there is no such backbone.
    """
    require_backbone(name)
    if name in _NAMED:
        return _NAMED[name]
    if is_plain(name):
        return ViT
    return Eva if isinstance(empty_net(name), TimmEva) else TimmNet


def build_backbone(settings: Model, size: tuple[int, int], counts: Mapping[str, int]) -> Backbone:
    """Build the backbone that the configuration names, with random weights.

    Args:
        settings: the model's section of the configuration.
        size: height and width of the images in pixels.
        counts: number of known labels of each kind of side information.

    Raises:
        ConfigError: the backbone is unknown, or an option excludes it.
    """
    kind = backbone_class(settings.backbone)
    _require_used(settings, kind)
    if settings.separate_backbones:
        return PerModality(lambda: kind(settings, size, counts), counts["modality"])
    return kind(settings, size, counts)


def _require_used(settings: Model, kind: type[Backbone]) -> None:
    """Refuse options that are set and that the backbone does not use; drop-path of 0 is true of every network."""
    unused = [
        name
        for name, field in Model.model_fields.items()
        if name not in kind.options | _COMMON_OPTIONS
        and getattr(settings, name) != field.default
        and not (name == "drop_path" and settings.drop_path == 0)
    ]
    if not unused:
        return
    reason = f"the backbone {settings.backbone} does not use {'it' if len(unused) == 1 else 'them'}"
    if any(name in unused for name in _TRANSFORMER):
        reason = f"jpm, sie and stride need a vision transformer with tokens, and {settings.backbone} is none"
    raise ConfigError(f"{', '.join(f'model.{name}' for name in unused)} cannot be set: {reason}")
