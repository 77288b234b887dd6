"""Features for a tracker, in the form that trackers call for: a frame and boxes in, a row for each box out."""

import numpy as np

from resight.data.image import edges
from resight.errors import PictureError
from resight.inference.embedder import Embedder


class TrackerFeatures:
    """Cuts boxes out of frames and embeds them.

    Args:
        embedder: of the pictures cut out.
        camera: that the frames are from.
        bgr: whether frames come in OpenCV's order of channels, as most trackers hand them on.
    """

    def __init__(self, embedder: Embedder, camera: str | None = None, bgr: bool = True) -> None:
        self.embedder, self.camera, self.bgr = embedder, camera, bgr

    def __call__(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] and [N, 4] (left, top, right, bottom, in pixels) to float32 [N, D] of unit length.

        Boxes are cut at the frame's edge; one that lies wholly outside of it has a row of zeros, like to nothing.

        Raises:
            PictureError: the frame or the boxes are of another form.
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4) if np.size(boxes) == 0 else np.asarray(boxes, np.float64)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise PictureError(f"a frame must be uint8 [H, W, 3], not {frame.dtype} {list(frame.shape)}")
        if boxes.ndim != 2 or boxes.shape[1] < 4 or not np.isfinite(boxes[:, :4]).all():
            raise PictureError("boxes must be finite numbers [N, 4]: left, top, right, bottom")
        whole, there = edges(boxes, *frame.shape[:2])
        seen = frame[..., ::-1] if self.bgr else frame
        cut = [seen[top:bottom, left:right] for left, top, right, bottom in whole[there]]
        found = np.zeros((len(boxes), self.embedder.width), np.float32)
        found[there] = self.embedder.embed(cut, camera=self.camera)
        return found
