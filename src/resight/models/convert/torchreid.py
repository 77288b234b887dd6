"""Checkpoints of torchreid (Zhou and Xiang 2019): OSNet and its variants, and ResNets."""

import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from resight.config.sections import Model
from resight.errors import CheckpointError
from resight.models.backbones.osnet import OSNETS, Variant, osnet_name
from resight.models.convert.family import Description, Family, FamilyOptions, Renamed, has_name, require_shape
from resight.models.convert.resnet_keys import resnet_name
from resight.models.convert.rules import imagenet_preprocessing, rename_by_rules

_SIZE: Final = (256, 128)
_DROPPED: Final = {
    r"classifier\.": "torchreid's classifier has no BNNeck before it; training starts a new one",
    r"fc\.(weight|bias)$": "ImageNet's classifier",
}
_BLOCK: Final = r"conv([234])\.([01])\."


def _osnet_rules(norm: str) -> list[tuple[str, str]]:
    """Return the rules of an OSNet whose blocks' instance normalisation has that name here."""
    rules = [(r"conv1\.", "backbone.stem."), (r"conv5\.", "backbone.last."), (r"fc\.([01])\.", r"backbone.fc.\1.")]
    for stage in (2, 3, 4):
        ours = rf"backbone.stages.{stage - 2}"
        block = rf"conv{stage}\.([01])\."
        rules += [
            # The 1x1 convolution before the average pool: a third entry of the stage, or a module of its own.
            (rf"(conv{stage}\.2|pool{stage})\.0\.", rf"{ours}.2."),
            (rf"{block}conv2a\.", rf"{ours}.\1.streams.0.0."),
            *((rf"{block}conv2{letter}\.", rf"{ours}.\1.streams.{i}.") for i, letter in enumerate("bcd", 1)),
            (rf"{block}conv2\.([0-3])\.layers\.", rf"{ours}.\1.streams.\2."),
            (rf"{block}IN\.", rf"{ours}.\1.{norm}."),
            (rf"{block}(conv1|conv3|downsample|gate)\.", rf"{ours}.\1.\2."),
        ]
    return rules


def _variant(tensors: Mapping[str, Tensor]) -> Variant:
    if any(re.match(_BLOCK + r"conv2\.0\.layers\.", name) for name in tensors):
        return "ain"
    return "ibn" if any(re.match(_BLOCK + r"IN\.", name) for name in tensors) else ""


def _rename_osnet(tensors: Mapping[str, Tensor]) -> Renamed:
    norm = "conv3.bn" if _variant(tensors) == "ain" else "norm_after"
    return rename_by_rules(tensors, _osnet_rules(norm), _DROPPED, "torchreid's OSNet")


def _describe_osnet(tensors: Mapping[str, Tensor], options: FamilyOptions) -> Description:
    channels = require_shape(tensors, "conv1.conv.weight", 4)[0]
    name = osnet_name(_variant(tensors), channels)
    if name not in OSNETS:
        raise CheckpointError(f"conv1.conv.weight has {channels} channels, and those of OSNets are 16, 32, 48 and 64")
    preprocessing, assumed = imagenet_preprocessing(options, _SIZE)
    return Description(Model().changed(backbone=name, drop_path=0.0), preprocessing, assumed=assumed)


def _rename_resnet(tensors: Mapping[str, Tensor]) -> Renamed:
    rules = [(r"(conv1|bn1|layer[1-4]|fc\.[01])\.", r"backbone.net.\1.")]
    return rename_by_rules(tensors, rules, _DROPPED, "torchreid's ResNet")


def _describe_resnet(tensors: Mapping[str, Tensor], options: FamilyOptions) -> Description:
    name = resnet_name(tensors, "")
    preprocessing, assumed = imagenet_preprocessing(options, _SIZE)
    # The keys tell the last stride: torchreid's networks with a fully connected layer have 1, those without have 2.
    model = Model().changed(backbone=name, last_stride=1 if name.endswith("fc512") else 2, drop_path=0.0)
    return Description(model, preprocessing, assumed=assumed)


OSNET: Final = Family(
    "torchreid's OSNet", frozenset(("size",)), has_name(r"conv2\.0\.conv1\.conv\."), _rename_osnet, _describe_osnet
)
RESNET: Final = Family(
    "torchreid's ResNet", frozenset(("size",)), has_name(r"layer1\.0\.conv1\."), _rename_resnet, _describe_resnet
)
