"""The folders of roboflow's `reid` (and of `trackers`): `reid_config.json` and `weights.safetensors`."""

from pathlib import Path
from typing import Any, Final, Literal, cast

import timm
import torch
from pydantic import ConfigDict, ValidationError
from torch import Tensor

from resight.config.section import Section, explain
from resight.config.sections import Deviation, Interpolation, Pixels, Preprocessing
from resight.errors import CheckpointError, ConfigError
from resight.models.backbones.osnet import OSNETS
from resight.models.convert.conversion import Conversion
from resight.models.convert.tensors import convert_tensors
from resight.models.convert.timm_files import TIMM
from resight.models.convert.torchreid import OSNET
from resight.models.tensor_file import read_tensors

REID_CARD: Final = "reid_config.json"
REID_WEIGHTS: Final = "weights.safetensors"
_LARGEST_CARD: Final = 1 << 20  # bytes
_TIMM: Final = "timm:"
_DIFFERENCE: Final = 1e-4  # relative


class ReidPreprocessing(Section):
    """What `reid` calls preprocessing; fields of other versions are ignored, as there."""

    model_config = ConfigDict(extra="ignore")

    input_size: tuple[Pixels, Pixels] = (256, 128)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bilinear"
    to_rgb: Literal[True] = True
    resize_mode: Literal["stretch"] = "stretch"


class ReidCard(Section):
    """The content of `reid_config.json`."""

    model_config = ConfigDict(extra="ignore")

    architecture: str
    preprocessing: ReidPreprocessing = ReidPreprocessing()


def is_reid_folder(folder: Path) -> bool:
    """Return whether a folder is one of `reid`."""
    return (folder / REID_CARD).is_file()


def convert_reid_folder(folder: Path) -> Conversion:
    """Convert a folder of `reid`: an OSNet, or a network of timm by name.

    Raises:
        CheckpointError: a file is missing, corrupt, or of a network or preprocessing that is not supported.
    """
    card = _read_card(folder / REID_CARD)
    tensors = read_tensors(folder / REID_WEIGHTS)
    source, size = str(folder / REID_WEIGHTS), card.preprocessing.input_size
    if card.architecture in OSNETS:
        conversion = convert_tensors(tensors, source, OSNET, {"size": size})
        if conversion.card.model.backbone != card.architecture:
            raise CheckpointError(
                f"{folder / REID_CARD} says {card.architecture}, and the weights are of "
                f"{conversion.card.model.backbone}: restore both files from one model"
            )
    elif card.architecture.startswith(_TIMM) and timm.is_model(card.architecture.removeprefix(_TIMM)):
        name = card.architecture.removeprefix(_TIMM)
        try:
            conversion = convert_tensors(tensors, source, TIMM, {"size": size, "backbone": name})
            _require_same(conversion, name, tensors)
        except ConfigError as error:  # of the file, and not of an option
            raise CheckpointError(f"{folder / REID_CARD}: {error}") from error
    else:
        raise CheckpointError(
            f"{folder / REID_CARD} has the architecture {card.architecture!r:.80}; supported are OSNets "
            f"({', '.join(name for name in OSNETS if '_x' in name)}) and timm:NAME"
        )
    theirs = card.preprocessing
    preprocessing = Preprocessing().changed(
        size=size, mean=theirs.mean, std=theirs.std, test_interpolation=theirs.interpolation
    )
    notes = (f"read as a folder of reid: {card.architecture}, preprocessing as {REID_CARD} says",)
    return Conversion(
        conversion.model, conversion.card.model_copy(update={"preprocessing": preprocessing}), conversion.left_out,
        (*notes, *(note for note in conversion.notes if not note.startswith(("read as", "assumed")))),
    )  # fmt: skip


def _read_card(file: Path) -> ReidCard:
    try:
        if file.stat().st_size > _LARGEST_CARD:
            raise CheckpointError(f"{file} is no description of a model: it is larger than 1 MiB")
        return ReidCard.model_validate_json(file.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise CheckpointError(f"{file} describes no model that is supported: {explain(error)}") from error


def _require_same(conversion: Conversion, name: str, tensors: dict[str, Tensor]) -> None:
    """Check that the embedding is what timm's network of that name computes, whose last layers differ by family."""
    size = conversion.card.preprocessing.size
    options: dict[str, Any] = {"num_classes": 0}
    net = cast(Any, timm.create_model(name, **options)).eval()
    missing = net.load_state_dict(tensors, strict=False).missing_keys
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            theirs, ours = net(images), conversion.model.embed(images, {})
    except (AssertionError, RuntimeError) as error:  # timm's network takes another size alone
        raise CheckpointError(f"timm's {name} cannot take images of {size[0]}x{size[1]}") from error
    same = theirs.shape == ours.shape and float((ours - theirs).norm()) <= _DIFFERENCE * float(theirs.norm())
    if missing or not same:
        raise CheckpointError(
            f"timm's {name} has layers after its feature map that are not supported, so its embeddings would differ"
        )
