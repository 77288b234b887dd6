"""Weights of timm: its own files, and state dicts of any of its networks, whose name an option gives."""

from collections.abc import Mapping
from typing import Any, Final, cast

import timm
from torch import Tensor

from resight.config.sections import Model, Preprocessing
from resight.errors import ConfigError
from resight.models.backbones.build import require_backbone
from resight.models.convert.family import Description, Family, FamilyOptions, Renamed, rename_prefixes

_CLASSIFIERS: Final = ("head.fc.", "head.weight", "head.bias", "head_dist.", "fc.", "classifier.", "last_linear.")


def _rename(tensors: Mapping[str, Tensor]) -> Renamed:
    dropped: dict[str, str] = dict.fromkeys(_CLASSIFIERS, "the classifier of the pre-training")
    dropped |= dict.fromkeys(("mask_token", "attn_pool."), "it is used in pre-training alone")
    return rename_prefixes(tensors, {"backbone.": "backbone.", "": "backbone."}, dropped, "timm")


def timm_family(preprocessing: Mapping[str, Any] | None = None) -> Family:
    """Return the family of timm's weights.

    Args:
        preprocessing: `input_size`, `mean`, `std` and `interpolation` of the weights, in timm's form; None for what the
            installed timm says about the name.
    """

    def describe(tensors: Mapping[str, Tensor], options: FamilyOptions) -> Description:
        return _describe(options, preprocessing)

    return Family(
        "timm",
        frozenset(("backbone", "size", "stride", "pooling", "gem_power")),
        lambda tensors: False,  # no name is timm's alone: the option `backbone` or the source says that it is timm's
        _rename,
        describe,
    )


def _describe(options: FamilyOptions, stored: Mapping[str, Any] | None) -> Description:
    """Describe the network by what timm says about the weights."""
    name = options.get("backbone")
    if name is None:
        raise ConfigError("which network of timm the weights are of is not known: give --backbone NAME")
    require_backbone(name)
    known = timm.get_pretrained_cfg(name)
    if known is None:
        raise ConfigError(f"{name} is no name of timm's, so its preprocessing is not known")
    settings = {**cast(Any, known).to_dict(), **(stored or {})}
    size = options.get("size", tuple(settings["input_size"][1:]))
    mean, std, interpolation = (settings[field] for field in ("mean", "std", "interpolation"))
    interpolation = interpolation if interpolation in ("bilinear", "bicubic") else "bicubic"
    preprocessing = Preprocessing().changed(size=size, mean=mean, std=std, test_interpolation=interpolation)
    assumed = [f"timm's preprocessing for {name}: mean {tuple(mean)}, standard deviation {tuple(std)}"]
    if "size" not in options:
        assumed.append(f"images of {size[0]}x{size[1]} (--size H W)")
    if "pooling" not in options:
        assumed.append("the feature is the class token, or the mean where there is none (--pooling)")
    model = Model().changed(
        backbone=name,
        pooling=options.get("pooling"),
        gem_power=options.get("gem_power", 3.0),
        stride=options.get("stride"),
    )
    return Description(model, preprocessing, assumed=assumed)


TIMM: Final = timm_family()
