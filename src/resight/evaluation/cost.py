"""What the embedding of a sighting costs, by the modalities that it has."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resight.inference.embedder import Embedder
from resight.models.backbones.per_modality import PerModality


@dataclass(frozen=True)
class SubsetCost:
    """The cost of sightings with some of the modalities."""

    parameters: int
    """Of the backbones of these modalities, and of the fusion; heads are not used in embedding."""
    flops: int
    """Floating point operations of one sighting; a multiply-add counts as two."""
    images_per_second: float
    """On this machine while the matrix was measured, with decoding; NaN where nothing was embedded."""


def subset_cost(embedder: Embedder, subset: str, images_per_second: float) -> SubsetCost:
    """Count the parameters and operations that a sighting with some modalities needs.

    Args:
        embedder: of a model of several modalities.
        subset: the modalities, such as `rgb+tir`.
        images_per_second: as measured.
    """
    modalities = embedder.card.vocabulary.modalities
    slots = [modalities.index(name) for name in subset.split("+")]
    images = torch.zeros(len(slots), 3, *embedder.card.preprocessing.size)
    side_info = {kind: torch.full((len(slots),), -1) for kind in ("camera", "view")}
    side_info["modality"] = torch.tensor(slots)
    rows = torch.full((1, len(modalities)), -1)  # [1, M]
    rows[0, slots] = torch.arange(len(slots))
    with FlopCounterMode(display=False) as counter:
        embedder.embed_tensor(images, side_info, rows=rows if embedder.fusion == "learned" else None)
    return SubsetCost(_parameters(embedder, slots), counter.get_total_flops(), images_per_second)


def _parameters(embedder: Embedder, slots: list[int]) -> int:
    backbone = embedder.model.backbone
    modules: list[nn.Module] = [backbone.nets[n] for n in slots] if isinstance(backbone, PerModality) else [backbone]
    if embedder.fusion == "learned" and embedder.model.fusion is not None:
        modules.append(embedder.model.fusion)
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
