"""Checkpoints of CLIP-ReID (Li et al. 2023) and its baselines with a ResNet of CLIP."""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from resight.config.sections import Model
from resight.errors import CheckpointError
from resight.models.backbones.clip_resnet import CLIP_RESNETS, ClipResNetLayout, clip_grid
from resight.models.convert.clip_vit import HEADS, TEXT
from resight.models.convert.family import Description, Family, FamilyOptions, Renamed, has_name, require_shape
from resight.models.convert.rules import count_children, imagenet_preprocessing, rename_by_rules

_SIZES: Final = ((256, 128), (256, 256))
_ENCODER: Final = "image_encoder."
_RULES: Final = [
    (r"image_encoder\.(conv[123]|bn[123]|layer[1-4]|attnpool)\.", r"backbone.\1."),
    *((theirs.replace(".", r"\."), ours) for theirs, ours in HEADS.items()),
]


def _rename(tensors: Mapping[str, Tensor]) -> Renamed:
    dropped = {name.replace(".", r"\."): reason for name, reason in TEXT.items()}
    return rename_by_rules(tensors, _RULES, dropped, "CLIP-ReID with a ResNet")


def _describe(tensors: Mapping[str, Tensor], options: FamilyOptions) -> Description:
    first, second, third, fourth = (count_children(tensors, f"{_ENCODER}layer{stage}.") for stage in range(1, 5))
    layout = ClipResNetLayout(
        (first, second, third, fourth),
        require_shape(tensors, f"{_ENCODER}conv3.weight", 4)[0],
        require_shape(tensors, f"{_ENCODER}attnpool.c_proj.weight", 2)[0],
    )
    name = next((name for name, known in CLIP_RESNETS.items() if known == layout), None)
    if name is None:
        raise CheckpointError(
            f"the checkpoint has {layout.blocks} blocks, a stem of {layout.stem} channels and an output of "
            f"{layout.projected}, as none of CLIP's ResNets: {', '.join(CLIP_RESNETS)}"
        )
    positions = require_shape(tensors, f"{_ENCODER}attnpool.positional_embedding", 2)[0] - 1
    size = next((size for size in _SIZES if _count(size) == positions), _SIZES[0])
    preprocessing, assumed = imagenet_preprocessing(options, size)
    stated = preprocessing.size
    if _count(stated) != positions:
        assumed.append(
            f"the {positions} positions are resized to the {_count(stated)} of {stated[0]}x{stated[1]} images"
        )
    model = Model().changed(backbone=name, feature=options.get("feature", "before"), drop_path=0.0)
    assumed.append("ImageNet's mean and standard deviation, as in the configurations of CLIP-ReID with a ResNet")
    return Description(model, preprocessing, assumed=assumed)


def _count(size: tuple[int, int]) -> int:
    rows, columns = clip_grid(size)
    return rows * columns


CLIP_RESNET: Final = Family(
    "CLIP-ReID with a ResNet",
    frozenset(("size", "feature")),
    has_name(r"image_encoder\.layer1\."),
    _rename,
    _describe,
)
