"""Checkpoints of SOLIDER (Chen et al. 2023): Swin transformers, before and after fine-tuning."""

import re
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from resight.config.sections import Model, Preprocessing
from resight.errors import CheckpointError
from resight.models.backbones.solider import SOLIDER_SWINS, SwinLayout
from resight.models.backbones.swin import relative_positions
from resight.models.convert.family import Description, Family, FamilyOptions, Renamed, has_name, require_shape
from resight.models.convert.rules import assumed_size, count_children, rename_by_rules

_SIZE: Final = (384, 128)
_SEMANTIC_WEIGHT: Final = 0.2
_STAGES: Final = 4
_BASE: Final = r"(?:base\.|backbone\.)?"
_RULES: Final = [
    (_BASE + r"patch_embed\.projection\.", "backbone.patch_embed."),
    (_BASE + r"patch_embed\.norm\.", "backbone.patch_norm."),
    (_BASE + r"stages\.(\d+)\.downsample\.", r"backbone.merges.\1."),
    (_BASE + r"stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.", r"backbone.stages.\1.blocks.\2.attn."),
    (_BASE + r"stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.0\.0\.", r"backbone.stages.\1.blocks.\2.mlp.0."),
    (_BASE + r"stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.1\.", r"backbone.stages.\1.blocks.\2.mlp.3."),
    (_BASE + r"stages\.(\d+)\.blocks\.(\d+)\.(norm[12])\.", r"backbone.stages.\1.blocks.\2.\3."),
    (_BASE + r"semantic_embed_w\.([0-2])\.", r"backbone.semantic.\1.scale."),
    (_BASE + r"semantic_embed_b\.([0-2])\.", r"backbone.semantic.\1.shift."),
    (_BASE + r"norm3\.", "backbone.map_norm."),
    (r"bottleneck\.", "necks.0."),
    (r"classifier\.", "heads.0."),
]
_DROPPED: Final = {
    r".*\.relative_position_index$": "it is computed",
    _BASE + r"norm[012]\.": "it is for maps that re-identification does not use",
    _BASE + r"semantic_embed_[wb]\.3\.": "it is applied after the feature is taken",
    r"head\.": "the head of the pre-training",
}


def _rename(tensors: Mapping[str, Tensor]) -> Renamed:
    for name, tensor in tensors.items():
        if name.endswith(".relative_position_index"):
            window = round(tensor.numel() ** 0.25)
            expected = relative_positions(window, torch.device("cpu"))
            if tensor.shape != expected.shape or not torch.equal(tensor, expected):
                raise CheckpointError(f"{name} is not the usual order of the positions of a window")
    return rename_by_rules(tensors, _RULES, _DROPPED, "SOLIDER")


def _describe(tensors: Mapping[str, Tensor], options: FamilyOptions) -> Description:
    base = next(
        (match[1] for name in tensors if (match := re.match(r"(base\.|backbone\.|)patch_embed\.projection\.", name))),
        "",
    )
    layout = _layout(tensors, base)
    name = next((name for name, known in SOLIDER_SWINS.items() if known == layout), None)
    if name is None:
        raise CheckpointError(
            f"the checkpoint is a Swin transformer with {layout.width} channels, {layout.depths} blocks, "
            f"{layout.heads} heads and windows of {layout.window}, as none of {', '.join(SOLIDER_SWINS)} has"
        )
    weight = options.get("semantic_weight", _SEMANTIC_WEIGHT)
    assumed = assumed_size(options, _SIZE)
    if "semantic_weight" not in options:
        assumed.append(f"a semantic weight of {weight}, as in the published figures (--semantic-weight)")
    model = Model().changed(backbone=name, semantic_weight=weight, feature=options.get("feature", "before"))
    return Description(model, Preprocessing().changed(size=options.get("size", _SIZE)), assumed=assumed)


def _layout(tensors: Mapping[str, Tensor], base: str) -> SwinLayout:
    width = require_shape(tensors, f"{base}patch_embed.projection.weight", 4)[0]
    tables = [
        require_shape(tensors, f"{base}stages.{stage}.blocks.0.attn.w_msa.relative_position_bias_table", 2)
        for stage in range(_STAGES)
    ]
    return SwinLayout(
        width,
        tuple(count_children(tensors, f"{base}stages.{stage}.blocks.") for stage in range(_STAGES)),
        tuple(table[1] for table in tables),
        (round(tables[0][0] ** 0.5) + 1) // 2,
    )


SOLIDER: Final = Family(
    "SOLIDER",
    frozenset(("size", "semantic_weight", "feature")),
    has_name(_BASE + r"(patch_embed\.projection|stages\.\d+\.blocks\.\d+\.attn\.w_msa)\."),
    _rename,
    _describe,
)
