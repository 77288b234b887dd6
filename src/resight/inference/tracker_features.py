"""Features for a tracker: a frame, or registered frames of several modalities, and boxes in; a row for each box out."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from resight.data.image import edges
from resight.errors import PictureError
from resight.inference.embedder import Embedder

_ONE: Final = ""  # stands for the modality of a single frame


class TrackerFeatures:
    """Cuts boxes out of frames and embeds them.

    Args:
        embedder: of the model.
        camera: of the frames.
        bgr: whether frames have OpenCV's order of channels, as most trackers pass them.
    """

    def __init__(self, embedder: Embedder, camera: str | None = None, bgr: bool = True) -> None:
        self.embedder = embedder
        self.camera = camera
        self.bgr = bgr

    def __call__(self, frame: np.ndarray | Mapping[str, np.ndarray], boxes: np.ndarray) -> np.ndarray:
        """Embed the boxes of a frame: float32 [N, E] of unit length.

        Boxes are cut at the frame's edge; one outside of it has a row of zeros, whose similarity to everything is 0.

        Args:
            frame: uint8 [H, W, 3]; or registered frames of one moment by modality, all of one size, such as
                `{"rgb": colour, "tir": thermal}`. A modality may be missing.
            boxes: [N, 4], left, top, right and bottom, in pixels.

        Raises:
            PictureError: the frame or the boxes are of another form, or the frames have different sizes.
            ConfigError: the model does not know a modality.
        """
        frames: dict[str, np.ndarray] = dict(frame) if isinstance(frame, Mapping) else {_ONE: frame}
        shape = _shape_of(frames)
        corners, inside = edges(_checked_boxes(boxes), *shape)
        features = np.zeros((len(inside), self.embedder.width), np.float32)
        crops = [
            {name: self._rgb(image)[top:bottom, left:right] for name, image in frames.items()}
            for left, top, right, bottom in corners[inside]
        ]
        images: list[Any] = crops if isinstance(frame, Mapping) else [crop[_ONE] for crop in crops]
        features[inside] = self.embedder.embed(images, camera=self.camera)
        return features

    def _rgb(self, frame: np.ndarray) -> np.ndarray:
        return frame[..., ::-1] if self.bgr else frame


def _shape_of(frames: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of registered frames."""
    shapes: dict[str, tuple[int, int]] = {}
    for name, frame in frames.items():
        what = "a frame" if name == _ONE else f"the {name} frame"
        if not isinstance(frame, np.ndarray):
            raise PictureError(f"{what} must be uint8 [H, W, 3], not {type(frame).__name__}")
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
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
