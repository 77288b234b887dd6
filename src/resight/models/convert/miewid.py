"""Checkpoints of MiewID (Otarashvili et al. 2024): an EfficientNetV2 of timm, GeM, and batch normalisation."""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from resight.config.sections import Model
from resight.models.convert.family import Description, Family, FamilyOptions, Renamed, has_name, require_shape
from resight.models.convert.rules import imagenet_preprocessing, rename_by_rules
from resight.models.convert.timm_shapes import find_timm_name

_NAMES: Final = tuple(f"efficientnetv2_rw_{size}" for size in ("m", "s", "t"))
_SIZE: Final = (440, 440)
_RULES: Final = [
    (r"backbone\.(conv_stem|bn1|blocks|conv_head|bn2)\.", r"backbone.net.\1."),
    (r"pooling\.p$", "backbone.pool.gem.p"),
    (r"bn\.", "necks.0."),
]
_DROPPED: Final = {r"(final|head)\.": "the classifier of the training"}


def _rename(tensors: Mapping[str, Tensor]) -> Renamed:
    return rename_by_rules(tensors, _RULES, _DROPPED, "MiewID")


def _describe(tensors: Mapping[str, Tensor], options: FamilyOptions) -> Description:
    require_shape(tensors, "pooling.p", 1)
    network = {
        name.removeprefix("backbone."): tensor for name, tensor in tensors.items() if name.startswith("backbone.")
    }
    name = find_timm_name(network, [options["backbone"]] if "backbone" in options else _NAMES, "EfficientNetV2")
    preprocessing, assumed = imagenet_preprocessing(options, _SIZE)
    model = Model().changed(backbone=name, pooling="gem", feature="after", drop_path=0.0)
    assumed.append("images resized bilinearly with antialiasing, as in the model card; their repository uses OpenCV")
    return Description(model, preprocessing, assumed=assumed)


MIEWID: Final = Family(
    "MiewID",
    frozenset(("size", "backbone")),
    has_name(r"backbone\.conv_stem\."),
    _rename,
    _describe,
)
