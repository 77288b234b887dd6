"""Checkpoints of MegaDescriptor (Cermak et al. 2024): timm's Swin transformers, in both layouts of their names."""

import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from resight.config.sections import Model
from resight.models.convert.family import Description, Family, FamilyOptions, Renamed, has_name
from resight.models.convert.rules import imagenet_preprocessing, rename_by_rules
from resight.models.convert.timm_shapes import find_timm_name

_NAMES: Final = (
    *(f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base", "large")),
    *(f"swin_{size}_patch4_window12_384" for size in ("base", "large")),
)
_OLD: Final = "layers.0.downsample."
_DROPPED: Final = {
    r".*\.(relative_position_index|attn_mask)$": "it is computed",
    r"head\.": "the classifier of the training",
}


def _rename(tensors: Mapping[str, Tensor]) -> Renamed:
    if any(name.startswith(_OLD) for name in tensors):
        # timm before 0.9 has the merging of patches at the end of a stage, later versions at the start of the next.
        shift = [
            (rf"layers\.{stage}\.downsample\.", f"backbone.net.layers.{stage + 1}.downsample.") for stage in range(3)
        ]
    else:
        shift = [(r"layers\.([1-3])\.downsample\.", r"backbone.net.layers.\1.downsample.")]
    rules = [*shift, (r"(patch_embed|layers\.\d+\.blocks|norm)\.", r"backbone.net.\1.")]
    return rename_by_rules(tensors, rules, _DROPPED, "timm's Swin transformers")


def _describe(tensors: Mapping[str, Tensor], options: FamilyOptions) -> Description:
    renamed = {name.removeprefix("backbone.net."): tensor for name, tensor in _rename(tensors).tensors.items()}
    name = find_timm_name(renamed, [options["backbone"]] if "backbone" in options else _NAMES, "Swin transformer")
    side = int(re.split("_", name)[-1])
    preprocessing, assumed = imagenet_preprocessing(options, (side, side))
    return Description(Model().changed(backbone=name, drop_path=0.0), preprocessing, assumed=assumed)


MEGADESCRIPTOR: Final = Family(
    "MegaDescriptor",
    frozenset(("size", "backbone")),
    has_name(r"layers\.0\.blocks\.0\."),
    _rename,
    _describe,
)
