"""Two pictures: are they of the same identity?"""

from dataclasses import dataclass

import numpy as np

from resight.errors import ConfigError
from resight.inference.embedder import Embedder, Image
from resight.retrieval.calibration import Curve


@dataclass(frozen=True)
class Similarity:
    """The comparison of two pictures."""

    similarity: float
    """Inner product, from -1 to 1."""
    probability: float | None
    """Of the same identity; None where the model is not calibrated."""
    known: bool | None
    """Whether the similarity reaches the calibration's threshold."""


def similarity(
    embedder: Embedder,
    first: Image,
    second: Image,
    cameras: tuple[str, str] | None = None,
    modalities: tuple[str, str] | None = None,
    prior: float = 0.5,
) -> Similarity:
    """Compare two pictures or sightings.

    Args:
        embedder: of the model.
        first: a picture or sighting.
        second: another.
        cameras: of the two.
        modalities: of the two.
        prior: probability, before the comparison, that the two are of one identity.

    Raises:
        ConfigError: the prior does not lie between 0 and 1, or the calibration is of other embeddings.
        PictureError: a picture cannot be decoded.
    """
    if isinstance(prior, bool) or not isinstance(prior, int | float | np.floating) or not 0 < prior < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"the prior probability must lie between 0 and 1, not {prior!r:.60}")
    calibration = embedder.calibration_for_use()
    a, b = embedder.embed([first, second], camera=cameras, modality=modalities)
    value = float(a @ b)
    curve = None if calibration is None else calibration.between(*embedder.modalities_of([first, second], modalities))
    return compared(value, curve, prior)


def compared(value: float, curve: Curve | None, prior: float) -> Similarity:
    """Say what a similarity means.

    Args:
        value: the inner product of two embeddings.
        curve: of the modalities of the two; None where the model is not calibrated.
        prior: probability, before the comparison, that the two are of one identity.
    """
    if curve is None:
        return Similarity(value, None, None)
    return Similarity(value, float(curve.of(np.array([value]), prior)[0]), value >= curve.threshold)
