"""Features for a tracker: a frame and boxes in, one row for each box out."""

import numpy as np

from resight.data.image import edges
from resight.errors import PictureError
from resight.inference.embedder import Embedder


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

    def __call__(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] and [N, 4] (left, top, right, bottom, in pixels) to float32 [N, E] of unit length.

        Boxes are cut at the frame's edge; one outside of it has a row of zeros, whose similarity to everything is 0.

        Raises:
            PictureError: the frame or the boxes are of another form.
        """
        if not isinstance(frame, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise PictureError(f"a frame must be uint8 [H, W, 3], not {type(frame).__name__}")
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise PictureError(f"a frame must be uint8 [H, W, 3], not {frame.dtype} {list(frame.shape)}")
        try:
            boxes = np.asarray(boxes, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise PictureError(f"boxes must be numbers [N, 4]: {error}") from error
        boxes = boxes if boxes.size else boxes.reshape(-1, 4)
        if boxes.ndim != 2 or boxes.shape[1] < 4 or not np.isfinite(boxes[:, :4]).all():
            raise PictureError("boxes must be finite numbers [N, 4]: left, top, right, bottom")
        corners, inside = edges(boxes, *frame.shape[:2])
        rgb = frame[..., ::-1] if self.bgr else frame
        crops = [rgb[top:bottom, left:right] for left, top, right, bottom in corners[inside]]
        features = np.zeros((len(boxes), self.embedder.width), np.float32)
        features[inside] = self.embedder.embed(crops, camera=self.camera)
        return features
