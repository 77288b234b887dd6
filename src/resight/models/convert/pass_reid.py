"""Checkpoints of PASS (Zhu et al. 2022): a vision transformer with three part tokens."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from resight.config.sections import Model, PartFusion, Preprocessing
from resight.errors import CheckpointError
from resight.models.convert.family import Description, Family, FamilyOptions, Renamed, has_name, rename_prefixes
from resight.models.convert.plain_vit import base_prefix, describe_plain, require_names, without_base

_PARTS: Final = 3
_TOKENS: Final = tuple(f"part_token{number}" for number in range(1, _PARTS + 1))
_POSITIONS: Final = ("cls_pos", *(f"part{number}_pos" for number in range(1, _PARTS + 1)), "pos_embed")


def _rename(tensors: Mapping[str, Tensor]) -> Renamed:
    """Join the tokens and positions that PASS stores one by one."""
    base = base_prefix(tensors)
    require_names(tensors, [base + name for name in (*_TOKENS, *_POSITIONS)], "PASS")
    joined = dict(tensors)
    for name, parts in (("pos_embed", _POSITIONS), ("reg_token", _TOKENS)):
        try:
            tensor = torch.cat([joined.pop(base + part) for part in parts], 1)
        except (RuntimeError, IndexError) as error:
            raise CheckpointError(f"the tensors {', '.join(parts)} are not [1, N, D] of one width D") from error
        joined[base + name] = tensor
    dropped = {f"{base}fc.": "ImageNet's classifier", f"{base}head.": "ImageNet's classifier"}
    dropped["head."] = "the head of the pre-training"
    prefixes = {"bottleneck.": "necks.0."}
    if _has_necks(tensors):
        dropped["classifier."] = "it is for the fused feature, and here each token has a head of its own"
        prefixes |= {f"bottleneck_{number}.": f"necks.{number}." for number in range(1, _PARTS + 1)}
    else:
        prefixes["classifier."] = "heads.0."
    return rename_prefixes(joined, prefixes | {base: "backbone."}, dropped, "PASS")


def _has_necks(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("bottleneck_1.") for name in tensors)


def _describe(tensors: Mapping[str, Tensor], options: FamilyOptions) -> Description:
    """Describe the network; the widths of necks tell the fusion where there is one neck."""
    renamed = without_base(_rename(tensors).tensors)
    facts = describe_plain(renamed, options, 1 + _PARTS)
    assumed = facts.assumed
    neck = tensors.get("bottleneck.weight")
    width = renamed["cls_token"].shape[-1]
    one_neck = neck is not None and not _has_necks(tensors)
    by_width: PartFusion | None = None
    if neck is not None and one_neck:
        fused: dict[int, PartFusion] = {2 * width: "concat", width: "mean"}
        by_width = fused.get(neck.numel())
    fusion = options.get("part_fusion") or by_width or ("concat" if neck is not None else "all")
    if "part_fusion" not in options and by_width is None:
        which = "class token and mean of the parts" if fusion == "concat" else "class token and each part"
        assumed.append(f"the embedding is {which}, concatenated (--part-fusion concat, mean or all)")
    model = Model(
        backbone=facts.backbone,
        stride=facts.stride,
        part_tokens=_PARTS,
        part_fusion=fusion,
        part_necks=not one_neck,
        feature=options.get("feature", "before"),
    )
    assumed.append("a mean and standard deviation of 0.5, as in the configurations of PASS")
    return Description(model, Preprocessing(size=facts.size), assumed=assumed)


PASS: Final = Family(
    "PASS",
    frozenset(("backbone", "size", "stride", "part_fusion", "feature")),
    has_name(r"(base\.|backbone\.)?part_token1$"),
    _rename,
    _describe,
)
