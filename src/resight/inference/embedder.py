"""A model at hand: pictures of any form in, embeddings out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from resight.config.sections import Precision, ResolvedPrecision
from resight.data.augment.augment import normalize
from resight.data.image import Picture, as_tensor, resize
from resight.data.vocabulary import UNKNOWN
from resight.device import DTYPES, autocast, pick_device, resolve_compute
from resight.errors import ConfigError
from resight.models.blocks import fold_and_cast_weights
from resight.models.checkpoint import ModelCard, fingerprint_of, load_model, read_calibration
from resight.models.sie import SIE, UnknownSideInfo
from resight.models.transreid import TransReID
from resight.retrieval.calibration import Calibration

Label = str | None
Network = Callable[[Tensor, Mapping[str, Tensor]], Tensor]


class Embedder:
    """Embeds pictures with one model.

    Args:
        model: the network, which is the embedder's from then on.
        card: what its folder says of it.
        fingerprint: of its weights and preprocessing; embeddings are only comparable under the same one.
        calibration: from similarity to probability, where the model has one.
        device: as `resight.embed.pick_device` takes it.
        precision: of the matrix products; `auto` is measured on this machine.
        flip: whether an embedding is the mean over the picture and its mirror image.
        unknown: what a picture is given whose camera, view or modality is not known, or was not there in training: the
            mean of the learned side information, or none (`off`).
        compile: have torch.compile make it faster, by a fifth in bf16 on a CPU; the first batch of a size takes up to a
            minute, and sizes are filled up to powers of two.
    """

    def __init__(
        self,
        model: TransReID,
        card: ModelCard,
        fingerprint: str,
        calibration: Calibration | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        flip: bool = False,
        unknown: UnknownSideInfo = "mean",
        compile: bool = False,
    ) -> None:
        self.device = pick_device(device)
        self.model, self.card, self.fingerprint, self.calibration = (
            model.eval().to(self.device),
            card,
            fingerprint,
            calibration,
        )
        for module in model.modules():
            if isinstance(module, SIE):
                module.unknown = unknown
        self.compute = resolve_compute(self.device, precision)
        """What it computes with: `auto` resolved on this machine."""
        self.precision: ResolvedPrecision = self.compute.precision
        if self.precision != "fp32":
            fold_and_cast_weights(self.model.backbone, DTYPES[self.precision])
        self._network = _compiled(self.model.embed) if compile else self.model.embed
        self.flip = flip
        self._batch = self.compute.batch_size

    @property
    def description(self) -> str:
        """What is computed, and with what, in one line."""
        return self.compute.describe(self.card.preprocessing.size, self._batch)

    @property
    def about(self) -> dict[str, Any]:
        """What a gallery for its embeddings is made with."""
        return {"width": self.width, "fingerprint": self.fingerprint}

    @property
    def width(self) -> int:
        """D, numbers of an embedding."""
        return self.model.width

    def embed(
        self,
        images: Picture | Sequence[Picture],
        camera: Label | Sequence[Label] = None,
        view: Label | Sequence[Label] = None,
        modality: Label | Sequence[Label] = None,
    ) -> np.ndarray:
        """Embeds one picture or many.

        Args:
            pictures: one, or B of them.
            camera: of all, or of each; a name from the training set, None where it is not known.
            view: likewise.
            modality: likewise; None means rgb, where the model knows that.

        Returns:
            float32 [B, D] of unit length; B is 1 for one picture.

        Raises:
            PictureError: one cannot be decoded, or is no picture at all.
            ConfigError: there are more or fewer labels than pictures, or no such modality.
        """
        one = isinstance(images, str | Path | bytes | np.ndarray | Tensor | Image.Image)
        held: Sequence[Picture] = [images] if one else images  # pyright: ignore[reportAssignmentType]
        known = self.card.vocabulary
        modality = "rgb" if modality is None and "rgb" in known.modalities else modality
        strange = {m for m in ([modality] if isinstance(modality, str) else modality or []) if m is not None}
        strange -= set(known.modalities)
        if strange:
            raise ConfigError(f"the model knows no modality {sorted(strange)[0]!r}, only {', '.join(known.modalities)}")
        side_info = {
            "camera": _numbers("camera", camera, known.cameras, len(held)),
            "view": _numbers("view", view, known.views, len(held)),
            "modality": _numbers("modality", modality, known.modalities, len(held)),
        }
        found = [self._embed(x, {kind: n[part] for kind, n in side_info.items()}) for part, x in self._batches(held)]
        return np.concatenate(found) if found else np.zeros((0, self.width), np.float32)

    def _batches(self, images: Sequence[Picture]) -> Iterator[tuple[slice, Tensor]]:
        """uint8 [b, 3, H, W], decoded by several threads one batch ahead."""
        parts = [slice(n, min(n + self._batch, len(images))) for n in range(0, len(images), self._batch)]
        with ThreadPoolExecutor() as pool:
            waiting = [pool.map(self._prepare, images[part]) for part in parts[:1]]
            for n, part in enumerate(parts):
                waiting += [pool.map(self._prepare, images[p]) for p in parts[n + 1 : n + 2]]
                yield part, torch.stack(list(waiting.pop(0)))

    def _prepare(self, picture: Picture) -> Tensor:
        return resize(as_tensor(picture), self.card.preprocessing.size, self.card.preprocessing.test_interpolation)

    def _embed(self, images: Tensor, side_info: dict[str, Tensor]) -> np.ndarray:
        """float32 [b, D], in halves for as long as the device has not the memory."""
        try:
            with torch.inference_mode(), autocast(self.device, self.precision):
                x = normalize(images.to(self.device), self.card.preprocessing.mean, self.card.preprocessing.std)
                side_info = {kind: numbers.to(self.device) for kind, numbers in side_info.items()}
                found = F.normalize(self._network(x, side_info).float())
                if self.flip:
                    found = F.normalize(found + F.normalize(self._network(x.flip(-1), side_info).float()))
                return found.cpu().numpy()
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
        half = len(images) // 2
        self._batch = max(1, min(self._batch, half))
        parts = (slice(0, half), slice(half, None))
        return np.concatenate([self._embed(images[p], {kind: n[p] for kind, n in side_info.items()}) for p in parts])


def load(
    folder: str | Path,
    device: str = "auto",
    precision: Precision = "auto",
    flip: bool = False,
    unknown: UnknownSideInfo = "mean",
    compile: bool = False,
) -> Embedder:
    """A model's folder, ready to embed; the arguments are the `Embedder`'s.

    Raises:
        CheckpointError: the folder is no model folder, or its files do not go together.
        ConfigError: this machine has no such device.
    """
    path = Path(folder)
    model, card = load_model(path)
    calibration = read_calibration(path)
    return Embedder(model, card, fingerprint_of(path), calibration, device, precision, flip, unknown, compile)


def _compiled(embed: Network) -> Network:
    """`embed` as torch.compile makes it, its weights laid out once as the products want them."""
    made, settings = torch.compile(embed, dynamic=False), import_module("torch._inductor.config")

    def run(images: Tensor, side_info: Mapping[str, Tensor]) -> Tensor:
        count = len(images)
        more = (1 << (count - 1).bit_length()) - count
        images = torch.cat([images, images[:1].expand(more, -1, -1, -1)])
        side_info = {kind: torch.cat([numbers, numbers[:1].expand(more)]) for kind, numbers in side_info.items()}
        with settings.patch(freezing=True):
            return made(images, side_info)[:count]

    return run


def _numbers(kind: str, labels: Label | Sequence[Label], known: tuple[str, ...], count: int) -> Tensor:
    """int64 [B]: labels as numbers, `UNKNOWN` where they are not known."""
    each = [labels] * count if labels is None or isinstance(labels, str) else list(labels)
    if len(each) != count:
        raise ConfigError(f"{len(each)} labels of {kind} are given for {count} pictures")
    number = {label: n for n, label in enumerate(known)}
    return torch.tensor([UNKNOWN if label is None else number.get(label, UNKNOWN) for label in each])
