"""Checkpoints of CLIP-ReID (Li et al. 2023) and its baselines with CLIP's vision transformer."""

import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from resight.config.sections import Model, Preprocessing
from resight.models.convert.family import (
    Description,
    Family,
    FamilyOptions,
    Renamed,
    divide_labels,
    has_name,
    rename_prefixes,
    require_shape,
)
from resight.models.convert.plain_vit import describe_plain

_NAMES: Final = (  # theirs, and timm's
    (r"^transformer\.resblocks\.(\d+)\.ln_(\d)\.", r"blocks.\1.norm\2."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"blocks.\1.mlp.fc1."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"blocks.\1.mlp.fc2."),
    (r"^conv1\.", "patch_embed.proj."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^proj$", "projection.weight"),
)
_ENCODER: Final = "image_encoder."
TEXT: Final = {
    "text_encoder.": "the text encoder, which embeddings of images do not need",
    "prompt_learner.": "the prompts of the text encoder",
}
HEADS: Final = {
    "classifier.": "heads.0.",
    "classifier_proj.": "heads.1.",
    "bottleneck.": "necks.0.",
    "bottleneck_proj.": "necks.1.",
}
"""The names of necks and heads, in all models of CLIP-ReID."""


def _rename(tensors: Mapping[str, Tensor]) -> Renamed:
    renamed = rename_prefixes(
        tensors, {**HEADS, "cv_embed": "backbone.sie.table", _ENCODER: "backbone."}, TEXT, "CLIP-ReID"
    )
    named = dict[str, Tensor]()
    for name, tensor in renamed.tensors.items():
        short = name.removeprefix("backbone.")
        if short != name:
            short = _timm_name(short)
            tensor = _reshape(short, tensor)
            short = f"backbone.{short}"
        named[short] = tensor
    return Renamed(named, renamed.left_out)


def _timm_name(name: str) -> str:
    for pattern, replacement in _NAMES:
        name, count = re.subn(pattern, replacement, name)
        if count:
            break
    return name


def _reshape(name: str, tensor: Tensor) -> Tensor:
    """Give a tensor timm's axes."""
    if name == "cls_token" and tensor.ndim == 1:
        return tensor[None, None]  # [1, 1, D]
    if name == "pos_embed" and tensor.ndim == 2:
        return tensor[None]  # [1, 1 + N, D]
    if name == "projection.weight" and tensor.ndim == 2:
        return tensor.T  # theirs is used as x @ proj
    return tensor


def _describe(tensors: Mapping[str, Tensor], options: FamilyOptions) -> Description:
    renamed = _rename(tensors).tensors
    names = {name.removeprefix("backbone."): tensor for name, tensor in renamed.items()}
    patch = require_shape(names, "patch_embed.proj.weight", 4)[-1]
    facts = describe_plain(names, options, 1, f"vit_base_patch{patch}_clip_quickgelu_224")
    assumed = facts.assumed
    model = Model(
        backbone=facts.backbone,
        stride=facts.stride,
        projection=require_shape(names, "projection.weight", 2)[0],
        feature=options.get("feature", "before"),
    )
    labels = {}
    if "sie.table" in names:
        labels, assumed_labels = divide_labels(len(names["sie.table"]), options)
        if "sie_weight" not in options:
            assumed_labels.append("a weight of the side information of 1.0, as in the published models (--sie-weight)")
        assumed += assumed_labels
        model = model.changed(sie=tuple(labels), sie_weight=options.get("sie_weight", 1.0), sie_tokens="class")
    assumed.append("a mean and standard deviation of 0.5, as in the configurations of CLIP-ReID with a transformer")
    return Description(model, Preprocessing(size=facts.size), labels, assumed)


CLIP_VIT: Final = Family(
    "CLIP-ReID with a vision transformer",
    frozenset(
        (
            *("backbone", "size", "stride", "feature", "sie_weight"),
            *("cameras", "views", "view_is_modality", "dataset"),
        )
    ),
    has_name(r"image_encoder\.class_embedding$"),
    _rename,
    _describe,
)
