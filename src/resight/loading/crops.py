"""What lies in a box."""

import numpy as np


def edges(boxes: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole pixels of boxes [N, 4] (left, top, right, bottom), cut at the edge of a frame of height x width.

    Returns:
        int64 [N, 4], and bool [N]: whether anything of the box lies in the frame.
    """
    limits = np.array([width, height, width, height])
    whole = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:4])], axis=1).clip(0, limits).astype(np.int64)
    return whole, (whole[:, 2] > whole[:, 0]) & (whole[:, 3] > whole[:, 1])
