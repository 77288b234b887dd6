"""Load pre-trained weights into a backbone: of timm, of a model folder, or of any family of checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import timm
from torch import Tensor

from resight.errors import CheckpointError
from resight.models.backbones.backbone import Backbone
from resight.models.backbones.plain import LEGACY_SMALL
from resight.models.backbones.positions import resize_positions
from resight.models.convert.families import family_of
from resight.models.convert.hub_timm import is_timm_address, read_hub_timm
from resight.models.convert.recognition import find_family
from resight.models.convert.transreid_ssl import PLAIN_VIT
from resight.models.hub.download import local_folder
from resight.models.open_model import open_model
from resight.models.tensor_file import read_tensors, without_prefixes
from resight.models.weights import LARGEST, fit

_CLASSIFIERS: Final = (
    *("head.", "head_dist.", "fc.", "pre_logits.", "dist_token", "mask_token", "fc_norm."),
    *("classifier.", "bottleneck.", "attn_pool."),
)
TIMM: Final = "timm"


def load_pretrained(backbone: Backbone, weights: str, name: str) -> list[str]:
    """Load pre-trained weights into a backbone and both of its branches.

    The position embedding is resized bilinearly where the grid differs, as in the reference. Side information of a
    fine-tuned model is of the cameras of another data set, and left out.

    Args:
        backbone: is changed in place.
        weights: the path of a file of any family of checkpoints, or of a model folder, or the address `hf://ORG/NAME`
            of one; or `timm` to download timm's weights, `timm:NAME` or `hf-hub:ORG/NAME` for those of another name
            with the same network.
        name: the backbone's name, for timm and for error messages.

    Returns:
        the names in the file that a backbone has no tensor for, those of its old classifier.

    Raises:
        CheckpointError: the file cannot be read or does not fit; lists the names.
    """
    tensors, left_out = _read(weights, name, backbone)
    family = family_of(tensors)
    adapted = backbone.adapt(without_prefixes(tensors, ("backbone.", "base."), weights), weights)
    return left_out + fit(backbone, adapted, weights, _CLASSIFIERS, family, LARGEST)


def _read(weights: str, name: str, backbone: Backbone) -> tuple[dict[str, Tensor], list[str]]:
    """Read the tensors of a backbone, and the names of others that the file has."""
    if is_timm_address(weights):
        return read_hub_timm(weights).tensors(), []
    if weights == TIMM or weights.startswith(f"{TIMM}:"):
        return download(weights.removeprefix(TIMM).removeprefix(":") or name), []
    folder = local_folder(weights)
    if folder.is_dir():
        return _of_folder(folder, name, backbone)
    tensors = read_tensors(Path(weights))
    if any(tensor.startswith("necks.") for tensor in tensors):
        return _backbone_alone(tensors)
    family = find_family(tensors, weights)
    if family is None or family is PLAIN_VIT:
        return {name: tensor for name, tensor in tensors.items() if not name.endswith("sie_embed")}, []
    renamed = family.rename(tensors)
    renamed_backbone, others = _backbone_alone(renamed.tensors)
    return renamed_backbone, [*renamed.left_out, *others]


def _of_folder(folder: Path, name: str, backbone: Backbone) -> tuple[dict[str, Tensor], list[str]]:
    """Read a model's backbone; its positions get the size that is needed here, since their grid is known."""
    model, card = open_model(folder)
    if card.model.backbone.partition(".")[0] != name.partition(".")[0]:
        raise CheckpointError(
            f"{folder} is a model with the backbone {card.model.backbone}, and the run has {name}: use "
            f"--model.backbone {card.model.backbone}"
        )
    tensors, others = _backbone_alone(model.state_dict())
    for prefix in ("", "net."):
        positions = tensors.get(f"backbone.{prefix}pos_embed")
        if positions is not None:
            before, after = (cast(Any, net).net if prefix else cast(Any, net) for net in (model.backbone, backbone))
            grid = tuple(before.patch_embed.grid_size)
            tensors[f"backbone.{prefix}pos_embed"] = resize_positions(positions, after, str(folder), grid)
    return tensors, others


def _backbone_alone(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Divide a model's tensors into those of its backbone, without side information, and the names of the others."""
    backbone = {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith("backbone.") and not name.startswith("backbone.sie.")
    }
    return backbone, [name for name in tensors if name not in backbone]


def download(name: str) -> dict[str, Tensor]:
    """Download timm's pre-trained weights of a network.

    Raises:
        CheckpointError: timm has none of that name, or they cannot be downloaded.
    """
    if name == LEGACY_SMALL:
        raise CheckpointError(f"timm has no weights for {name}; give the reference's own file")
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # the client of the Hugging Face Hub raises exceptions of many types
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"timm could not get pre-trained weights of {name} ({reason}); download them elsewhere and give their file"
        ) from error
