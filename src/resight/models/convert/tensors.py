"""Tensors of a known family as a model: renamed, described, completed, and loaded strictly."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from resight.data.catalog import camera_owner
from resight.models.checkpoint import ModelCard
from resight.models.convert.conversion import Conversion
from resight.models.convert.families import family_of
from resight.models.convert.family import Family, Renamed, check_family_options
from resight.models.convert.side_info import name_labels
from resight.models.transreid import TransReID
from resight.models.weights import LARGEST, fit


def convert_tensors(
    tensors: Mapping[str, Tensor], source: str, family: Family, stated: Mapping[str, Any]
) -> Conversion:
    """Convert tensors of a known family to a model.

    Args:
        tensors: by the family's names.
        source: where they come from, for error messages.
        family: whose names they have.
        stated: options of the family.

    Raises:
        CheckpointError: the tensors are not those of a network of the family.
        ConfigError: an option is not one of the family, or has an invalid value.
    """
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
    notes += _complete(renamed, model, source)
    fit(model, renamed.tensors, source, looks_like=family_of(tensors), largest=LARGEST)
    return Conversion(model.eval(), card, renamed.left_out, tuple(notes))


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
