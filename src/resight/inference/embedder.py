"""The one path from pictures and sightings to embeddings."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from resight.config.scaling import Scaling
from resight.config.sections import Embedding, Fusion
from resight.data.augment.augment import normalize
from resight.data.image import Picture
from resight.data.sightings import Sighting, SightingTable
from resight.device import Compute, autocast, resolve_compute
from resight.errors import ConfigError
from resight.inference.compiled import compile_network
from resight.inference.decoding import decoded_batches
from resight.inference.inputs import Label, as_inputs, fuse
from resight.models.checkpoint import ModelCard, effective_fusion, embedding_id, weights_digest
from resight.models.sie import evaluation_mode
from resight.models.transreid import TransReID
from resight.retrieval.calibration import Calibration

Image = Picture | Sighting | Mapping[str, Picture]
"""A picture of any form, or the pictures of one sighting by modality."""


class Embedder:
    """Embeds pictures and sightings with one model.

    The model is never changed: in training, an `Embedder` wraps the live model; `resight.load` prepares a private one.

    Args:
        model: the network, on any device.
        card: its model card, whose section `embedding` says how sightings become vectors.
        settings: another section `embedding` instead of the card's.
        compute: device, precision and batch size; None resolves the settings on this machine.
        calibration: from similarity to probability, where the model has one.
        digest: SHA-256 of the model's weights; None computes it when `embedding_id` is first asked for.
        folder: the model folder that it was loaded from, if any.
        compile: whether torch.compile makes the network faster, by a fifth in bf16 on a CPU. The first batch of a size
            takes up to a minute, and batches are filled up to powers of two.
    """

    def __init__(
        self,
        model: TransReID,
        card: ModelCard,
        settings: Embedding | None = None,
        compute: Compute | None = None,
        calibration: Calibration | None = None,
        digest: str | None = None,
        folder: Path | None = None,
        compile: bool = False,
    ) -> None:
        self.model = model
        self.card = card
        self.settings = settings or card.embedding
        self.device = next(model.parameters()).device
        self.compute = compute or resolve_compute(self.device, self.settings.precision, self.settings.batch_size)
        self.calibration = calibration
        self.fusion: Fusion = effective_fusion(self.settings.fusion, card.model)
        self.batch_size = self.compute.batch_size
        """Images at once; it is halved where the device's memory does not suffice."""
        self.folder = folder
        self._digest = digest
        if compile and self.fusion == "learned":
            raise ConfigError("a model that fuses modalities is not compiled: leave compile out")
        self._network = compile_network(model.embed) if compile else model.embed

    def __repr__(self) -> str:
        return f"Embedder({self.card.model.backbone}, width {self.width}, {self.description})"

    @property
    def description(self) -> str:
        """Device, kind of processor, precision, image size and batch size, in one line."""
        return self.compute.describe(self.card.preprocessing.size, self.batch_size)

    @property
    def threads(self) -> int:
        """Threads of torch that compute a batch; 1 where it is not torch, or not this processor, that computes it."""
        return self.compute.threads if self.device.type == "cpu" else 1

    @property
    def scaling(self) -> Scaling:
        """By modality, how one channel of more than 8 bits becomes 8, as the settings or else the preprocessing say."""
        return self.settings.scaling or self.card.preprocessing.scaling

    @property
    def width(self) -> int:
        """E, the numbers of an embedding: those of the model, for each modality where they are concatenated."""
        if self.fusion == "learned":
            return self.model.fused_width
        modalities = len(self.card.vocabulary.modalities)
        return self.model.width * (modalities if self.fusion == "concat" else 1)

    @property
    def embedding_id(self) -> str:
        """16 hexadecimal digits of a hash of weights, preprocessing and every setting that changes a vector. Only
        embeddings of one id can be compared. Precisions share an id."""
        if self._digest is None:
            self._digest = weights_digest(self.model.state_dict())
        return embedding_id(self._digest, self.card, self.settings)

    def calibration_for_use(self) -> Calibration | None:
        """The model's calibration, made sure to hold for these embeddings.

        Raises:
            ConfigError: it was measured on others.
        """
        current = self.embedding_id
        if self.calibration is not None and self.calibration.embedding_id not in (None, current):
            raise ConfigError(
                f"the model's calibration is of embeddings {self.calibration.embedding_id}, and these are {current} "
                "(other flip, fusion or unknown side information): run resight calibrate with the same settings"
            )
        return self.calibration

    def embed(
        self,
        images: Image | Sequence[Image] | SightingTable,
        camera: Label | Sequence[Label] = None,
        view: Label | Sequence[Label] = None,
        modality: Label | Sequence[Label] = None,
        progress: Callable[[int], None] = lambda count: None,
    ) -> np.ndarray:
        """Embed pictures or sightings: N rows for N of them.

        Args:
            images: one, a list of N, or a table of N sightings.
            camera: of all, or of each; a name from the training set. None takes it from a sighting.
            view: likewise.
            modality: of pictures, likewise; None means rgb, where the model knows that.
            progress: is called with the number of sightings that are embedded.

        Returns:
            float32 [N, E] of unit length; N is 1 for one picture.

        Raises:
            PictureError: a picture cannot be decoded, or has another form.
            ConfigError: labels and pictures differ in number, or a modality is unknown or missing where needed.
        """
        known = self.card.vocabulary
        inputs = as_inputs(images, camera, view, modality, known.modalities)
        numbers = inputs.numbers(known.cameras, known.views, known.modalities)
        embeddings = np.zeros((inputs.count, self.width), np.float32)
        with self.evaluation_mode():
            for part, pixels in decoded_batches(inputs, self.batch_size, self.card.preprocessing, self.scaling):
                side_info = {kind: torch.from_numpy(labels[part]) for kind, labels in numbers.items()}
                first, rows = inputs.rows(part, numbers["modality"], len(known.modalities))  # [n, M]
                if self.fusion == "learned":  # [n, E]
                    fused = self._forward(pixels, side_info, torch.from_numpy(rows))
                else:
                    sighting, slot = inputs.sighting[part] - first, numbers["modality"][part]
                    vectors = self._forward(pixels, side_info)  # [r, D]
                    fused = fuse(vectors, sighting, slot, len(rows), len(known.modalities), self.fusion)
                embeddings[first : first + len(rows)] = fused
                progress(first + len(rows))
        return embeddings

    def modalities_of(self, images: Image | Sequence[Image], modality: Label | Sequence[Label] = None) -> list[Label]:
        """The modalities of each sighting of `embed`'s input, such as `rgb+tir`; None where one is unknown."""
        modalities = self.card.vocabulary.modalities
        return as_inputs(images, None, None, modality, modalities).subsets(modalities)

    @property
    def concatenates(self) -> bool:
        """Whether an embedding has a part for each modality, so that sightings without a common one have nothing in
        common."""
        return self.fusion == "concat" or (self.fusion == "learned" and self.card.model.fusion == "concat")

    def chunk_size(self, images_per_sighting: int) -> int:
        """How many sightings to hand to `embed` at a time, so that its batches are those of one call with all."""
        return 4 * max(1, self.batch_size // max(1, images_per_sighting))

    def unknown_labels(self, sightings: SightingTable) -> dict[str, list[str]]:
        """The cameras and views of some sightings that the model's side information was not trained for."""
        known = {"camera": self.card.vocabulary.cameras, "view": self.card.vocabulary.views}
        used = [kind for kind in known if kind in self.card.model.sie and len(known[kind]) > 1]
        unknown = {kind: sorted(set(sightings.values(kind)) - set(known[kind])) for kind in used}
        return {kind: names for kind, names in unknown.items() if names}

    def _forward(self, pixels: Tensor, side_info: Mapping[str, Tensor], rows: Tensor | None = None) -> np.ndarray:
        """uint8 [r, 3, H, W] to float32 [r, D], or to [n, E] of the sightings that `rows`, int64 [n, M], makes of them;
        in halves for as long as the device's memory does not suffice."""
        images = normalize(pixels.to(self.device), self.card.preprocessing.mean, self.card.preprocessing.std)
        count = len(pixels) if rows is None else len(rows)
        try:
            return self.embed_tensor(images, side_info, rows=rows).numpy()
        except torch.OutOfMemoryError:
            if count == 1:
                raise
        half = count // 2
        middle = half if rows is None else int((rows[:half] >= 0).sum())  # images of the first half
        self.batch_size = max(1, min(self.batch_size, len(pixels) // 2))
        halves = [(slice(0, middle), None if rows is None else rows[:half])]
        halves.append((slice(middle, None), None if rows is None else rows[half:] - middle))
        return np.concatenate(
            [self._forward(pixels[part], {k: labels[part] for k, labels in side_info.items()}, r) for part, r in halves]
        )

    def embed_tensor(
        self,
        images: Tensor,
        side_info: Mapping[str, Tensor] | None = None,
        normalize: bool = True,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Embed preprocessed images: the last step of `embed`, for those who have their own preprocessing.

        Args:
            images: float32 [B, 3, H, W], means taken off and divided by standard deviations.
            side_info: int64 [B] by kind (camera, view, modality); None for unknown cameras and views, and the model's
                first modality.
            normalize: whether embeddings have unit length.
            rows: int64 [N, M], for a model that fuses modalities: the image of each modality of each sighting, or -1
                where it is absent. None embeds each image alone.

        Returns:
            float32 [B, D], or [N, E] of sightings, on the CPU.
        """
        if side_info is None:
            unknown = torch.full((len(images),), -1)
            side_info = {"camera": unknown, "view": unknown, "modality": torch.zeros_like(unknown)}
        images = images.to(self.device)
        fused = () if rows is None else (rows.to(self.device),)
        side_info = {kind: labels.to(self.device) for kind, labels in side_info.items()}
        unit = F.normalize if normalize else torch.nn.Identity()
        with self.evaluation_mode(), torch.inference_mode(), autocast(self.device, self.compute.precision):
            embeddings = unit(self._network(images, side_info, *fused).float())
            if self.settings.flip:
                mirrored = unit(self._network(images.flip(-1), side_info, *fused).float())
                embeddings = unit(embeddings + mirrored) if normalize else (embeddings + mirrored) / 2
        return embeddings.cpu()

    def evaluation_mode(self) -> AbstractContextManager[None]:
        """The model in evaluation mode, with the settings' answer to unknown side information; then as it was."""
        return evaluation_mode(self.model, self.settings.unknown)
