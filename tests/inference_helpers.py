"""Networks for tests of inference: their embeddings depend much on the pictures, and exports of them take seconds."""

from pathlib import Path

import torch

from resight.config.sections import Embedding, Model, Preprocessing
from resight.data.vocabulary import Vocabulary
from resight.files import write_folder
from resight.inference.embedder import Embedder
from resight.models.checkpoint import ModelCard, fill_model_folder
from resight.models.transreid import TransReID


def card_of(
    cameras=("c1", "c2"), modalities=("rgb",), embedding=None, interpolation="bilinear", **settings
) -> ModelCard:
    """Of a small network."""
    return ModelCard(
        model=Model(backbone="test_vit", **settings),
        preprocessing=Preprocessing(size=(64, 32), mean=(0.4, 0.5, 0.6), test_interpolation=interpolation),
        vocabulary=Vocabulary(("a", "b"), tuple(cameras), (), tuple(modalities)),
        embedding=embedding or Embedding(precision="fp32"),
    )


def sensitive_network(card: ModelCard) -> TransReID:
    """A random network whose weights are larger than usual: a picture resized otherwise has a cosine of 0.96 to 0.99 to
    itself, where a usual random network gives 0.9999 for it and 0.998 for two different pictures."""
    torch.manual_seed(0)
    network = card.build().eval()
    for name, value in network.backbone.named_parameters():
        if name.endswith("sie.table"):
            value.data.normal_(0, 0.1)
        elif value.dim() > 1 and name.endswith("weight"):
            value.data.mul_(5)
    return network


def sensitive_model(folder: Path, card: ModelCard) -> Path:
    """A model folder of such a network."""
    state = sensitive_network(card).state_dict()
    write_folder(folder, lambda path: fill_model_folder(path, state, card))
    return folder


def short_embedder(card: ModelCard, settings: Embedding | None = None) -> Embedder:
    """Such a network with 1 of its 6 blocks, which is exported in seconds; no folder can hold it."""
    network = sensitive_network(card)
    del network.backbone.blocks[:-1]
    return Embedder(network, card, settings)
