"""A training's figures as lines of text."""

from collections.abc import Mapping
from typing import Any

from resight.data.vocabulary import Vocabulary
from resight.progress import counted, percent


def epoch_line(line: dict[str, Any], epochs: int) -> str:
    """An epoch's figures in one line."""
    return (
        f"epoch {line['epoch']:3d}/{epochs}  loss {line['loss']:.3f}  id {line['id']:.3f}  "
        f"triplet {line['triplet']:.3f}  {_other_losses(line)}accuracy {percent(line['accuracy'])}  "
        f"lr {line['lr']:.2e}  {line['images_per_second']:.1f} images/s  "
        f"{line['seconds']:.0f} s"
    )


def _other_losses(line: dict[str, Any]) -> str:
    names = {"cross_modal": "cross-modal", "distillation": "distillation"}
    return "".join(f"{name} {line[key]:.3f}  " for key, name in names.items() if key in line)


def score_line(scores: Mapping[str, float]) -> str:
    """A ranking's figures, rates in [0, 1], in one line of percentages."""
    return "  ".join(f"{name} {percent(value)}" for name, value in scores.items())


def size_line(sightings: int, vocabulary: Vocabulary) -> str:
    """The sizes of a training set in one line."""
    identities = counted(len(vocabulary.identities), "identity", "identities")
    cameras = counted(len(vocabulary.cameras), "camera")
    return f"training set: {counted(sightings, 'sighting')}, {identities}, {cameras}"
