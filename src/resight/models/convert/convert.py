"""Convert a checkpoint of another implementation to a model: of the reference, or of a family that its names tell."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Unpack

import torch
from torch import Tensor

from resight.data.catalog import camera_owner
from resight.errors import CheckpointError, ConfigError
from resight.models.backbones.build import backbone_class
from resight.models.backbones.eva import Eva
from resight.models.backbones.timm_net import TimmNet
from resight.models.checkpoint import ModelCard
from resight.models.convert.conversion import Conversion
from resight.models.convert.families import family_of
from resight.models.convert.family import Family, FamilyOptions, Renamed, check_family_options
from resight.models.convert.recognition import find_family
from resight.models.convert.reference import convert_reference
from resight.models.convert.side_info import name_labels
from resight.models.convert.timm_files import TIMM
from resight.models.convert.transreid_ssl import PLAIN_VIT
from resight.models.pretrained import download
from resight.models.tensor_file import read_tensors
from resight.models.transreid import TransReID
from resight.models.weights import LARGEST, fit

_REFERENCE_ONLY: Final = ("cameras", "views", "view_is_modality", "dataset")


def convert_checkpoint(
    checkpoint: str | Path, options: Mapping[str, Any] | None = None, **family_options: Unpack[FamilyOptions]
) -> Conversion:
    """Convert a checkpoint of another implementation to a model.

    The family is recognised by the names of the tensors (docs/backbones.md lists the families). What no tensor tells is
    stated as an option or assumed; the result's `notes` say what was assumed.

    Args:
        checkpoint: a file of `torch.save` or a `.safetensors` file, which is read without running code in it; or
            `timm:NAME` to download timm's weights of that name.
        options: the reference's options by name (`MODEL.JPM`, `INPUT.SIZE_TRAIN`), for checkpoints of the reference;
            missing ones have the values of the reference's transformer recipes. None: the family tells.
        family_options: of the family, see `FamilyOptions`. With `options` only `cameras`, `views`, `view_is_modality`
            and `dataset` are used.

    Raises:
        CheckpointError: the file is corrupt or unsafe, of no known family, or does not fit the options.
        ConfigError: an option is unknown, or has an invalid value.

    Example:
        `resight.convert_checkpoint("personvit.pth", pooling="token").write("models/personvit")`
    """
    stated: dict[str, Any] = {name: value for name, value in family_options.items() if value is not None}
    if options is not None:
        others = [name for name in stated if name not in _REFERENCE_ONLY]
        if others:
            raise ConfigError(f"--{others[0].replace('_', '-')} is not used with the reference's options: remove it")
        return convert_reference(checkpoint, options, **stated)
    return _convert_family(checkpoint, stated)


def _convert_family(checkpoint: str | Path, stated: Mapping[str, Any]) -> Conversion:
    """Convert a checkpoint of the family that its names tell, or weights of timm."""
    source = str(checkpoint)
    if source.startswith("timm:"):
        name = source.removeprefix("timm:")
        tensors, family, stated = download(name), TIMM, {"backbone": name, **stated}
    else:
        tensors = read_tensors(Path(checkpoint))
        family = _family_of_file(tensors, source, stated.get("backbone"))
    checked = check_family_options(family, stated)
    renamed = family.rename(tensors)
    description = family.describe(tensors, checked)
    dataset = checked.get("dataset")
    owner = None if dataset is None else camera_owner(dataset)
    head = renamed.tensors.get("heads.0.weight")
    classes = 0 if head is None else len(head)
    card = ModelCard(
        model=description.model,
        preprocessing=description.preprocessing,
        vocabulary=name_labels(classes, description.labels, owner),
    )
    model = card.build_empty()
    notes = [f"read as a checkpoint of {family.name}", *(f"assumed: {text}" for text in description.assumed)]
    notes += _complete(renamed, model, str(checkpoint))
    fit(model, renamed.tensors, checkpoint, looks_like=family_of(tensors), largest=LARGEST)
    return Conversion(model.eval(), card, renamed.left_out, tuple(notes))


def _family_of_file(tensors: Mapping[str, Tensor], source: str, backbone: str | None) -> Family:
    """The family that the names tell; or timm, where the stated backbone is no plain vision transformer."""
    family = find_family(tensors, source)
    if family in (None, PLAIN_VIT) and backbone is not None and backbone_class(backbone) in (Eva, TimmNet):
        return TIMM
    if family is not None:
        return family
    looks_like = family_of(tensors)
    hint = f"; the file looks like {looks_like}" if looks_like else ""
    raise CheckpointError(
        f"{source} is of no family of checkpoints that can be converted{hint}; for a network of timm, "
        "give --backbone NAME"
    )


def _complete(renamed: Renamed, model: TransReID, source: str) -> list[str]:
    """Adapt the backbone's tensors to the model's grid, and add necks and heads where the checkpoint has none."""
    tensors = renamed.tensors
    backbone = {
        name.removeprefix("backbone."): tensors.pop(name) for name in list(tensors) if name.startswith("backbone.")
    }
    adapted = model.backbone.adapt(backbone, source)
    tensors |= {f"backbone.{name}": tensor for name, tensor in adapted.items()}
    notes = list[str]()
    expected = model.state_dict()
    for kind, start in (("necks", _new_neck), ("heads", _new_head)):
        new = [name for name in expected if name.startswith(f"{kind}.")]
        if new and not any(name.startswith(f"{kind}.") for name in tensors):
            tensors |= {name: start(name, expected[name]) for name in new}
            notes.append(
                f"the checkpoint has no {kind}: they start {'as the identity' if kind == 'necks' else 'empty'}"
            )
    return notes


def _new_neck(name: str, like: Tensor) -> Tensor:
    """The tensor of a BNNeck that changes nothing: scale and variance 1, all others 0."""
    ones = name.endswith((".weight", ".running_var"))
    return torch.ones(like.shape, dtype=like.dtype) if ones else torch.zeros(like.shape, dtype=like.dtype)


def _new_head(name: str, like: Tensor) -> Tensor:
    return torch.zeros(like.shape, dtype=like.dtype)
