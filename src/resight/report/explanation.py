"""A drawing of why two pictures are similar: attention, and the patches that resemble each other."""

from io import BytesIO
from pathlib import Path
from typing import Any, Final

import matplotlib.figure
import numpy as np
from matplotlib.patches import ConnectionPatch
from PIL import Image

from resight.data.decode import ArrayPicture, as_array
from resight.files import make_folder, write_file
from resight.inference.explain import Explanation
from resight.progress import percent

COLOURS: Final = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7")
"""Of pairs, in the order of their contributions: distinct for colour-blind readers too (Okabe and Ito 2008)."""
_DARKEST: Final = 0.3  # brightness of a patch without weight
_MAX_SIDE: Final = 512  # pixels of a drawn picture
_DISPLAY_RULE: Final = ("percentiles", 1.0, 99.0)  # of an image of more than 8 bits, for a viewer


def light(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Darken a picture where its patches have little weight; the patch with the greatest weight keeps its brightness.

    Args:
        picture: uint8 [h, w, 3].
        weights: float32 [rows, columns]; the grid is stretched over the picture, negative weights count as 0, and the
            brightness follows the square root, so that small weights are visible too.

    Returns:
        uint8 [h, w, 3].
    """
    height, width = picture.shape[:2]
    positive = np.sqrt(weights.clip(min=0) / max(float(weights.max()), 1e-12))
    stretched = Image.fromarray(positive.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    brightness = _DARKEST + (1 - _DARKEST) * np.asarray(stretched).clip(0, 1)
    return (picture * brightness[..., None]).round().astype(np.uint8)


def draw_explanation(explanation: Explanation, first: ArrayPicture, second: ArrayPicture, path: Path) -> None:
    """Draw both pictures twice: lit by attention, and by the contributions of their patches, with the largest pairs.

    Args:
        explanation: of the two pictures.
        first: the first picture.
        second: the second one.
        path: of the PNG.

    Raises:
        PictureError: a picture cannot be decoded.
        StorageError: the file cannot be written.
    """
    images = [_displayed(picture) for picture in (first, second)]
    figure = matplotlib.figure.Figure(figsize=(9, 5.2), layout="constrained")
    axes: Any = figure.subplots(1, 4, width_ratios=[picture.shape[1] / picture.shape[0] for picture in images] * 2)
    titles = ("attention", "attention", "patches that resemble", "patches that resemble")
    weights = (*explanation.attention, *explanation.maps)
    for number, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        axis.imshow(light(images[number % 2], weights[number]))
        axis.set_title(f"{'first' if number % 2 == 0 else 'second'} picture:\n{title}", fontsize=9)
        axis.set_axis_off()
    _draw_pairs(figure, axes[2], axes[3], explanation, images)
    figure.suptitle(_caption(explanation), fontsize=10)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    make_folder(path.parent)
    write_file(path, buffer.getvalue())


def _draw_pairs(figure: Any, left: Any, right: Any, explanation: Explanation, images: list[np.ndarray]) -> None:
    for number, (pair, colour) in enumerate(zip(explanation.pairs(len(COLOURS)), COLOURS, strict=False), start=1):
        points = [
            _centre(cell, attention.shape, picture)
            for cell, attention, picture in zip((pair.first, pair.second), explanation.attention, images, strict=True)
        ]
        line = ConnectionPatch(
            points[0], points[1], "data", "data", axesA=left, axesB=right, color=colour, linewidth=1.2
        )
        figure.add_artist(line)
        for axis, point in zip((left, right), points, strict=True):
            axis.plot(*point, "o", markersize=11, markerfacecolor=colour, markeredgecolor="black", clip_on=False)
            axis.text(*point, str(number), fontsize=7, ha="center", va="center", color="black")


def _centre(cell: tuple[int, int], shape: tuple[int, ...], picture: np.ndarray) -> tuple[float, float]:
    """The middle of a patch: x and y in pixels of the picture."""
    height, width = picture.shape[:2]
    return (cell[1] + 0.5) / shape[1] * width - 0.5, (cell[0] + 0.5) / shape[0] * height - 0.5


def _caption(explanation: Explanation) -> str:
    comparison = explanation.comparison
    probability = comparison.probability
    text = f"similarity {comparison.similarity:.4f}"
    text += "" if probability is None else f", probability of the same identity {percent(probability)}"
    return f"{text}; of the patches {explanation.patch_similarity:.4f}"


def _displayed(picture: ArrayPicture) -> np.ndarray:
    """A picture as it is drawn: uint8 [h, w, 3], not larger than a drawing needs."""
    image = Image.fromarray(as_array(picture, _DISPLAY_RULE))
    image.thumbnail((_MAX_SIDE, _MAX_SIDE))
    return np.asarray(image)
