"""Why two pictures are similar: where the model looks in each, and which patches of both resemble each other."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from resight.data.augment.augment import normalize
from resight.device import autocast
from resight.errors import ConfigError
from resight.inference.decoding import decoded_batches
from resight.inference.embedder import Embedder, Image
from resight.inference.inputs import Label, as_inputs
from resight.inference.similarity import Similarity, similarity
from resight.models.attention import TokenMap, map_tokens

_MIN_CONTRIBUTION: Final = 0.1  # of the largest pair's, for a pair to be listed
Cell = tuple[int, int]
"""Row and column of a patch, from 0."""


@dataclass(frozen=True)
class PatchPair:
    """A patch of the first picture and one of the second that resemble each other."""

    first: Cell
    second: Cell
    similarity: float
    """Of both patches, from -1 to 1."""
    contribution: float
    """The pair's term in `Explanation.patch_similarity`."""


@dataclass(frozen=True)
class Explanation:
    """Why two pictures are similar, or are not."""

    comparison: Similarity
    """Of the embeddings of both pictures."""
    attention: tuple[np.ndarray, np.ndarray]
    """For each picture float32 [rows, columns]: how much the last block attends to each patch when it makes the
    embedding; sums to 1."""
    similarities: np.ndarray
    """float32 [N, N']: of each patch of the first picture and each of the second, from -1 to 1."""

    @property
    def contributions(self) -> np.ndarray:
        """float32 [N, N']: `similarities[i, j]`, weighted with the attention to both patches."""
        first, second = (attention.reshape(-1) for attention in self.attention)
        return first[:, None] * self.similarities * second[None]

    @property
    def patch_similarity(self) -> float:
        """The sum of all contributions: the similarity of the patches under both attentions, from -1 to 1.

        It is not the similarity of the embeddings, which the last block and its norm make from the tokens.
        """
        return float(self.contributions.sum())

    @property
    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        """For each picture float32 [rows, columns]: the contributions of each patch; sums to `patch_similarity`."""
        terms = self.contributions
        first, second = self.attention
        return terms.sum(1).reshape(first.shape), terms.sum(0).reshape(second.shape)

    def pairs(self, count: int = 6) -> list[PatchPair]:
        """Return the pairs that contribute most, largest first; each patch, and its neighbors, are in one pair alone.

        Args:
            count: greatest number of pairs; pairs that contribute less than a tenth of the first are left out.
        """
        terms = self.contributions.copy()
        columns = tuple(attention.shape[1] for attention in self.attention)
        pairs = list[PatchPair]()
        lowest = max(_MIN_CONTRIBUTION * float(terms.max(initial=0.0)), 1e-12)
        while len(pairs) < count and terms.max(initial=0.0) >= lowest:
            row, column = np.unravel_index(int(terms.argmax()), terms.shape)
            i, j = int(row), int(column)
            first, second = divmod(i, columns[0]), divmod(j, columns[1])
            pair = PatchPair(first, second, float(self.similarities[i, j]), float(terms[i, j]))
            pairs.append(pair)
            terms[_neighborhood(first, self.attention[0].shape)] = 0
            terms[:, _neighborhood(second, self.attention[1].shape)] = 0
        return pairs


def explain(
    model: Embedder,
    first: Image,
    second: Image,
    cameras: tuple[Label, Label] | None = None,
    modalities: tuple[Label, Label] | None = None,
    prior: float = 0.5,
) -> Explanation:
    """Explain the similarity of two pictures: attention, and the patches that resemble each other. No gradient is used.

    With the tokens p_i and q_j of the patches as they enter the last block, their means p and q over each picture, and
    the attention a_i and b_j of the class token to them (the mean over the heads, without what other tokens get):

        s_ij = cos(p_i - p, q_j - q),    patch similarity = sum over i, j of a_i b_j s_ij

    The means are taken off because what all tokens of a picture have in common, such as the side information of its
    camera, says nothing about a pair. Pictures are explained as they are, without the mirror image that
    `Embedding.flip` may add.

    Args:
        model: of a vision transformer.
        first: a picture of one modality.
        second: another.
        cameras: of the two.
        modalities: of the two; None is rgb, where the model knows that.
        prior: probability, before the comparison, that the two are of one identity.

    Raises:
        ConfigError: the model has no patch tokens, or a picture has several modalities.
        PictureError: a picture cannot be decoded.
    """
    known = model.card.vocabulary
    inputs = as_inputs([first, second], cameras, None, modalities, known.modalities)
    if len(inputs.images) != 2:
        raise ConfigError("an explanation compares two pictures of one modality each: give one of each sighting")
    numbers = inputs.numbers(known.cameras, known.views, known.modalities)
    batches = decoded_batches(inputs, 2, model.card.preprocessing, model.scaling)
    pixels = torch.cat([batch for _, batch in batches])  # uint8 [2, 3, H, W]
    images = normalize(pixels.to(model.device), model.card.preprocessing.mean, model.card.preprocessing.std)
    token_maps = list[TokenMap]()
    with model.evaluation_mode(), torch.inference_mode(), autocast(model.device, model.compute.precision):
        for n in range(2):
            side_info = {kind: torch.from_numpy(labels[n : n + 1]).to(model.device) for kind, labels in numbers.items()}
            backbone = model.model.backbone
            token_maps.append(map_tokens(backbone, images[n : n + 1], side_info, model.card.model.backbone))
    labels = tuple(inputs.camera), tuple(inputs.modality)
    comparison = similarity(model, pixels[0], pixels[1], labels[0], labels[1], prior)  # pyright: ignore[reportArgumentType]
    attention = tuple(token_map.attention.numpy() for token_map in token_maps)
    similarities = _cosines(token_maps[0].tokens, token_maps[1].tokens).numpy()
    return Explanation(comparison, attention, similarities)  # pyright: ignore[reportArgumentType]


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosines of tokens [N, D] and [N', D] without what those of one picture have in common: [N, N']."""
    return F.normalize(first - first.mean(0), dim=1) @ F.normalize(second - second.mean(0), dim=1).T


def _neighborhood(cell: Cell, shape: tuple[int, ...]) -> np.ndarray:
    """The rows of a patch and its eight neighbors in a grid."""
    rows, columns = np.indices(shape)
    return np.flatnonzero((np.abs(rows - cell[0]) <= 1) & (np.abs(columns - cell[1]) <= 1))
