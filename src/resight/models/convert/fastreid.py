"""Checkpoints of fast-reid (He et al. 2020): BoT, AGW and SBS with ResNets, of all three generations of keys."""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from resight.config.sections import Model, Preprocessing
from resight.errors import CheckpointError
from resight.models.convert.family import Description, Family, FamilyOptions, Renamed, has_name
from resight.models.convert.resnet_keys import resnet_name
from resight.models.convert.rules import imagenet_preprocessing, rename_by_rules

_SIZE: Final = (256, 128)
_POWER: Final = r"heads\.pool_layer\.(0\.)?p$"
_COUNT: Final = "num_batches_tracked"
_RULES: Final = [
    (r"backbone\.(conv1|bn1|layer[1-4]|NL_[1-4])\.", r"backbone.net.\1."),
    (_POWER, "backbone.net.global_pool.gem.p"),
    (r"heads\.(bnneck|bottleneck\.0)\.", "necks.0."),
    (r"heads\.(classifier\.)?weight$", "heads.0.weight"),
]
_DROPPED: Final = {r"pixel_(mean|std)$": "mean and deviation of the pixels are part of the model card"}


def _rename(tensors: Mapping[str, Tensor]) -> Renamed:
    embedding = tensors.get("heads.bottleneck.0.weight")
    if embedding is not None and embedding.ndim != 1:
        raise CheckpointError(
            f"heads.bottleneck.0.weight is {list(embedding.shape)}: an embedding layer (HEADS.EMBEDDING_DIM or "
            "REDUCTION_DIM) is not supported"
        )
    dropped = dict(_DROPPED)
    if f"heads.bottleneck.0.{_COUNT}" in tensors:
        dropped[rf"heads\.bnneck\.{_COUNT}$"] = "heads.bottleneck.0 has its own"
    return rename_by_rules(tensors, _RULES, dropped, "fast-reid with a ResNet")


def _describe(tensors: Mapping[str, Tensor], options: FamilyOptions) -> Description:
    name = resnet_name(tensors, "backbone.")
    preprocessing, assumed = _preprocessing(tensors, options)
    stem, stem_note = _stem(tensors, options)
    pooling, pooling_note = _pooling(tensors, options, name.endswith("_nl"))
    model = Model().changed(
        backbone=name, max_pool="padded" if stem == "old" else "ceil", feature="after", drop_path=0.0, **pooling
    )
    return Description(model, preprocessing, assumed=[*stem_note, *pooling_note, *assumed])


def _stem(tensors: Mapping[str, Tensor], options: FamilyOptions) -> tuple[str, list[str]]:
    """Return which stem the network has; in practice the old one, where the neck was called bnneck."""
    if "stem" in options:
        return options["stem"], []
    if any(name.startswith("heads.bnneck.") for name in tensors):
        return "old", ["the stem of before August 2020, since a name has heads.bnneck (--stem new otherwise)"]
    return "new", ["the stem of since August 2020 (--stem old otherwise)"]


def _pooling(
    tensors: Mapping[str, Tensor], options: FamilyOptions, non_local: bool
) -> tuple[dict[str, object], list[str]]:
    """Return the fields of the pooling: GeM with the file's exponent or a fixed one, or the mean."""
    has_power = any(name.startswith("heads.pool_layer.") for name in tensors)
    pooling = options.get("pooling", "gem" if options.get("gem") else None)
    if pooling not in (None, "mean", "gem"):
        raise CheckpointError(f"--pooling {pooling} is no pooling of fast-reid that is supported; use mean or gem")
    if has_power:
        if pooling == "mean" or "gem_power" in options:
            raise CheckpointError("heads.pool_layer.p is the exponent of GeM; leave out --pooling and --gem-power")
        return {"pooling": "gem"}, []
    if pooling is None:
        pooling = "gem" if non_local or "gem_power" in options else "mean"
        reason = "GeM with exponent 3, since it has non-local blocks" if pooling == "gem" else "the mean"
        assumed = [] if "gem_power" in options else [f"the pooling: {reason} (--pooling mean or gem)"]
    else:
        assumed = []
    if pooling == "mean":
        if "gem_power" in options:
            raise CheckpointError("--gem-power needs --pooling gem")
        return {"pooling": "mean"}, assumed
    return {"pooling": "gem", "gem_power": options.get("gem_power", 3.0)}, assumed


def _preprocessing(tensors: Mapping[str, Tensor], options: FamilyOptions) -> tuple[Preprocessing, list[str]]:
    """Return ImageNet's preprocessing, with the file's mean and deviation (of 0 to 255) where it has them."""
    preprocessing, assumed = imagenet_preprocessing(options, _SIZE, bicubic=True)
    stored = {
        field: [value / 255 for value in tensors[name].flatten().tolist()]
        for field, name in (("mean", "pixel_mean"), ("std", "pixel_std"))
        if name in tensors
    }
    if any(len(values) != 3 for values in stored.values()):
        raise CheckpointError("pixel_mean and pixel_std must have 3 values each")
    return preprocessing.changed(**{field: tuple(values) for field, values in stored.items()}), assumed


FASTREID: Final = Family(
    "fast-reid",
    frozenset(("size", "stem", "pooling", "gem", "gem_power")),
    has_name(r"heads\.(bnneck|bottleneck)\."),
    _rename,
    _describe,
)
