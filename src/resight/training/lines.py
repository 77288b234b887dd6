"""A training's figures as lines of text."""

from typing import Any


def epoch_line(line: dict[str, Any], epochs: int) -> str:
    """An epoch's figures in one line."""
    return (
        f"epoch {line['epoch']:3d}/{epochs}  loss {line['loss']:.3f}  id {line['id']:.3f}  "
        f"triplet {line['triplet']:.3f}  accuracy {line['accuracy']:.3f}  lr {line['lr']:.2e}  "
        f"{line['images_per_second']:.1f} images/s  "
        f"{line['seconds']:.0f} s"
    )


def score_line(scores: dict[str, float]) -> str:
    """A ranking's figures in one line."""
    return "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
