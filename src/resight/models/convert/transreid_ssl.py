"""Checkpoints of plain vision transformers: TransReID without JPM, TransReID-SSL, PersonViT, DINO, and timm's own.

They have the same names; pooling and side information are options.
"""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from resight.config.sections import Model, Pool, Preprocessing
from resight.errors import CheckpointError, ConfigError
from resight.models.convert.family import (
    Description,
    Family,
    FamilyOptions,
    Renamed,
    divide_labels,
    has_name,
    rename_prefixes,
)
from resight.models.convert.plain_vit import base_prefix, describe_plain, without_base

_NAME: Final = "TransReID, TransReID-SSL, PersonViT and other plain vision transformers"
_PRETRAINING: Final = "the head of the pre-training"


def _rename(tensors: Mapping[str, Tensor]) -> Renamed:
    base = base_prefix(tensors)
    if any(name.startswith(("b1.", "b2.")) for name in tensors):
        raise CheckpointError(
            "the checkpoint has the branches of JPM (b1 and b2): give the reference's options with --config FILE, or "
            "--options MODEL.JPM=True ..."
        )
    dropped = {f"{base}{name}.": "the classifier of the pre-training" for name in ("fc", "head", "head_dist")}
    dropped |= {"head.": _PRETRAINING, f"{base}mask_token": "the mask of the pre-training"}
    prefixes = {
        "classifier.": "heads.0.",
        "bottleneck.": "necks.0.",
        f"{base}sie_embed": "backbone.sie.table",
        f"{base}fc_norm.": "backbone.norm.",
        base: "backbone.",
    }
    renamed = rename_prefixes(tensors, prefixes, dropped, _NAME)
    table = renamed.tensors.get("backbone.sie.table")
    if table is not None and table.ndim == 3:
        renamed.tensors["backbone.sie.table"] = table.squeeze(1)
    return renamed


def _describe(tensors: Mapping[str, Tensor], options: FamilyOptions) -> Description:
    names = without_base(tensors)
    facts = describe_plain(names, options, 1)
    assumed = facts.assumed
    pooling: Pool | None = options.get("pooling")
    if options.get("gem"):
        if pooling not in (None, "token-gem"):
            raise ConfigError(f"--gem and --pooling {pooling} exclude each other: use one of them")
        pooling = "token-gem"
    if pooling is None and "gem" not in options:
        assumed.append("the feature is the class token (--gem for class token + GeM; --pooling for PersonViT's others)")
    model = Model(
        backbone=facts.backbone,
        stride=facts.stride,
        stem="ics" if "patch_embed.conv.0.weight" in names else "patch",
        pooling=pooling,
        gem_power=options.get("gem_power", 3.0),
        feature=options.get("feature", "before"),
    )
    labels = {}
    if "sie_embed" in names:
        labels, assumed_labels = divide_labels(len(names["sie_embed"]), options)
        weight = options.get("sie_weight", 3.0)
        if "sie_weight" not in options:
            assumed_labels.append("a weight of the side information of 3.0, the reference's (--sie-weight)")
        assumed += assumed_labels
        model = model.changed(sie=tuple(labels), sie_weight=weight)
    assumed.append("a mean and standard deviation of 0.5, as in the configurations of TransReID-SSL and PersonViT")
    return Description(model, Preprocessing(size=facts.size), labels, assumed)


def _matches(tensors: Mapping[str, Tensor]) -> bool:
    is_vit = has_name(r"(base\.|backbone\.)?blocks\.0\.attn\.(qkv|proj)\.weight$")
    return is_vit(tensors) and not has_name(r"(base\.|backbone\.)?part_token1$")(tensors)


PLAIN_VIT: Final = Family(
    _NAME,
    frozenset(
        (
            *("backbone", "size", "stride", "pooling", "gem", "gem_power", "feature", "sie_weight"),
            *("cameras", "views", "view_is_modality", "dataset"),
        )
    ),
    _matches,
    _rename,
    _describe,
)
