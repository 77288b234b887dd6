"""Features for a tracker: a frame, or registered frames of several modalities, and boxes in; a row for each box out.

The methods have the names and the arguments that tracking libraries call; none of these libraries is imported.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from resight.data.image import edges
from resight.errors import ConfigError, PictureError
from resight.inference.embedder import Embedder

_ONE: Final = ""  # stands for the modality of a single frame
Frame = np.ndarray | Mapping[str, np.ndarray]


class TrackerFeatures:
    """Cuts boxes out of frames and embeds them.

    A box is rounded outwards to whole pixels and cut at the frame's edge. A box without a pixel in the frame, outside
    of it or without area, is replaced by the pixels of the frame that are nearest to it. So every row has unit length,
    and none is zero.

    Args:
        embedder: of the model.
        camera: of the frames.
        bgr: whether the frames of a plain call, and arrays in `encode`, have OpenCV's order of channels; off for RGB.
    """

    def __init__(self, embedder: Embedder, camera: str | None = None, bgr: bool = True) -> None:
        self.embedder = embedder
        self.camera = camera
        self.bgr = bgr

    def __call__(self, frame: Frame, boxes: Any) -> np.ndarray:
        """Embed the boxes of a frame: float32 [N, E] of unit length.

        Args:
            frame: uint8 [H, W, 3]; or registered frames of one moment by modality, all of one size, such as
                `{"rgb": colour, "tir": thermal}`. A modality may be missing.
            boxes: [N, 4], left, top, right and bottom, in pixels; further columns are ignored.

        Raises:
            PictureError: the frame or the boxes are of another form, or the frames have different sizes.
            ConfigError: the model does not know a modality.
        """
        return self._embed(frame, boxes, self.bgr)

    def extract_embeddings(self, detections: Any, frame_bgr: Frame, *, batch_size: int | None = None) -> np.ndarray:
        """Embed the boxes of detections: float32 [N, E], as `reid.ReIDModel` of roboflow does.

        Where the detections have a dictionary `data`, as `supervision.Detections` has, it gets the rows as `embedding`.

        Args:
            detections: with boxes `xyxy`, [N, 4], in pixels; such as `supervision.Detections`.
            frame_bgr: uint8 [H, W, 3], in OpenCV's order of channels.
            batch_size: boxes embedded at once; None for as many as the embedder takes.

        Raises:
            PictureError: the frame or the boxes are of another form.
            ConfigError: the batch size is less than 1.
        """
        features = self._embed(frame_bgr, _boxes_of(detections), True, batch_size)
        data = getattr(detections, "data", None)
        if isinstance(data, dict):
            data["embedding"] = features
        return features

    def get_features(self, xyxys: Any, frame_bgr: Frame) -> np.ndarray:
        """Embed boxes, as the backends of BoxMOT do: float32 [N, E].

        Args:
            xyxys: [N, 4], left, top, right and bottom, in pixels.
            frame_bgr: uint8 [H, W, 3], in OpenCV's order of channels.

        Raises:
            PictureError: the frame or the boxes are of another form.
        """
        return self._embed(frame_bgr, xyxys, True)

    def encode(self, frames: Sequence[Any], detections: Sequence[Any]) -> list[Tensor]:
        """Embed the boxes of several frames, as the encoders of BoxMOT do: for each frame float32 [N, E] on the CPU.

        Args:
            frames: with `image`, a tensor uint8 [3, H, W] in RGB; or arrays uint8 [H, W, 3].
            detections: of each frame, with boxes `geometry.values` or `xyxy`, [N, 4], in pixels; or the boxes alone.

        Raises:
            PictureError: a frame or boxes are of another form, or frames and detections differ in number.
        """
        if len(frames) != len(detections):
            raise PictureError(f"{len(frames)} frames and {len(detections)} detections are given: one for each frame")
        rows = list[Tensor]()
        for frame, boxes in zip(frames, detections, strict=True):
            image, is_bgr = _image_of(frame, self.bgr)
            rows.append(torch.from_numpy(self._embed(image, _boxes_of(boxes), is_bgr)))
        return rows

    @property
    def embedding_dim(self) -> int:
        """E, the numbers of an embedding, as BoxMOT asks for it."""
        return self.embedder.width

    @property
    def requirements(self) -> SimpleNamespace:
        """What the encoder needs besides boxes, as BoxMOT asks for it: no masks."""
        return SimpleNamespace(masks=False)

    def _embed(self, frame: Frame, boxes: Any, is_bgr: bool, batch_size: int | None = None) -> np.ndarray:
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, not {batch_size}")
        frames: dict[str, np.ndarray] = dict(frame) if isinstance(frame, Mapping) else {_ONE: frame}
        shape = _shape_of(frames)
        corners = _with_pixels(edges(_checked_boxes(boxes), *shape)[0], *shape)
        crops = [
            {name: _crop(image, corner)[..., :: -1 if is_bgr else 1] for name, image in frames.items()}
            for corner in corners.tolist()
        ]
        images: list[Any] = crops if isinstance(frame, Mapping) else [crop[_ONE] for crop in crops]
        size = batch_size or max(1, len(images))
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        empty = np.zeros((0, self.embedder.width), np.float32)
        return np.concatenate([empty, *(self.embedder.embed(part, camera=self.camera) for part in parts)])


def _crop(image: np.ndarray, corner: Sequence[int]) -> np.ndarray:
    left, top, right, bottom = corner
    return image[top:bottom, left:right]


def _with_pixels(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Give each clipped box, int64 [N, 4], one column and one row of pixels at least: the nearest to it."""
    first = np.minimum(corners[:, :2], [width - 1, height - 1])
    return np.concatenate([first, np.maximum(corners[:, 2:], first + 1)], axis=1)


def _boxes_of(detections: Any) -> Any:
    """The boxes of detections of any library, or what is given."""
    if getattr(detections, "is_obb", False):
        raise PictureError("boxes must not be rotated: left, top, right, bottom")
    geometry = getattr(detections, "geometry", None)
    return getattr(detections, "xyxy", detections) if geometry is None else geometry.values


def _image_of(frame: Any, bgr: bool) -> tuple[Any, bool]:
    """A frame as an array [H, W, 3], and whether it is in BGR."""
    image = getattr(frame, "image", None)
    if image is None:
        return frame, bgr
    pixels = np.asarray(image)
    return (pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels), False


def _shape_of(frames: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of registered frames."""
    shapes: dict[str, tuple[int, int]] = {}
    for name, frame in frames.items():
        what = "a frame" if name == _ONE else f"the {name} frame"
        if not isinstance(frame, np.ndarray):
            raise PictureError(f"{what} must be uint8 [H, W, 3], not {type(frame).__name__}")
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise PictureError(f"{what} must be uint8 [H, W, 3], not {frame.dtype} {list(frame.shape)}")
        shapes[name] = (frame.shape[0], frame.shape[1])
    if not shapes:
        raise PictureError("there is no frame: give one, or registered frames by modality")
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {width} x {height}" for name, (height, width) in shapes.items())
        raise PictureError(f"registered frames must have one size: {listed}")
    return next(iter(shapes.values()))


def _checked_boxes(boxes: Any) -> np.ndarray:
    try:
        numbers = np.asarray(boxes, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise PictureError(f"boxes must be numbers [N, 4]: {error}") from error
    numbers = numbers if numbers.size else numbers.reshape(-1, 4)
    if numbers.ndim != 2 or numbers.shape[1] < 4 or not np.isfinite(numbers[:, :4]).all():
        raise PictureError("boxes must be finite numbers [N, 4]: left, top, right, bottom")
    return numbers
