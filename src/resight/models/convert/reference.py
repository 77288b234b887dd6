"""Convert checkpoints of the reference implementation of TransReID."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from resight.config.sections import Model
from resight.data.catalog import camera_owner
from resight.errors import CheckpointError, ConfigError
from resight.models.backbones.resnet import RESNET
from resight.models.backbones.vit import ViT
from resight.models.checkpoint import ModelCard
from resight.models.convert.conversion import Conversion
from resight.models.convert.families import family_of
from resight.models.convert.options import check_options
from resight.models.convert.settings import PATCH, dataset_of, sections_of
from resight.models.convert.side_info import SIE_TABLE, count_labels, name_labels
from resight.models.tensor_file import read_tensors
from resight.models.transreid import TransReID, build_empty
from resight.models.weights import LARGEST, fit, shorten

_MAXPATCHES: Final = 65_536
_UNUSED_WITH_JPM: Final = "the reference trains copies of it in b1 and b2 and leaves this one unused"


def convert_reference(
    checkpoint: str | Path,
    options: Mapping[str, Any],
    cameras: int | None = None,
    views: int | None = None,
    view_is_modality: bool | None = None,
    dataset: str | None = None,
) -> Conversion:
    """Convert a checkpoint of the reference to a model.

    Args:
        checkpoint: a state dict saved with `torch.save`, with or without the prefix `module.`.
        options: the reference's options by name (`MODEL.JPM`, `INPUT.SIZE_TRAIN`); missing ones have the values of the
            reference's transformer recipes.
        cameras: number of cameras, if SIE encodes camera and view.
        views: number of views, if SIE encodes camera and view.
        view_is_modality: the views of SIE are modalities, in the order rgb, nir, tir.
        dataset: the data set of the catalog that the cameras and views belong to; None takes it from DATASETS.NAMES.

    Raises:
        CheckpointError: the file is corrupt or unsafe, or does not fit the options.
        ConfigError: an option is unknown or has an invalid value.
    """
    used, unused = check_options(options)
    owner = dataset_of(used) if dataset is None else camera_owner(dataset)
    settings, preprocessing = sections_of(used, bool(view_is_modality))
    tensors = read_tensors(Path(checkpoint))
    # Compare what the options say with the tensors, before anything is built.
    classes = _count_identities(tensors)
    label_counts = count_labels(tensors, settings.sie, cameras, views)
    settings = settings.changed(sie=tuple(label_counts))
    _require_same_branches(tensors, settings)
    if settings.backbone != RESNET:
        _require_same_grid(tensors, settings, preprocessing.size)
    # Load the tensors into an empty model.
    counts = {"camera": 0, "view": 0, "modality": 1} | label_counts
    model = build_empty(settings, preprocessing.size, classes, counts)
    renamed, left_out = _rename(tensors, settings, model, checkpoint)
    fit(model, renamed, checkpoint, looks_like=family_of(tensors), largest=LARGEST)
    vocabulary = name_labels(classes, label_counts, owner)
    card = ModelCard(model=settings, preprocessing=preprocessing, vocabulary=vocabulary)
    notes = (f"{len(unused)} options concern training, which a model folder does not store",) if unused else ()
    return Conversion(model.eval(), card, left_out, notes)


def _count_identities(tensors: Mapping[str, Tensor]) -> int:
    classifier = tensors.get("classifier.weight")
    if classifier is None:
        family = family_of(tensors)
        hint = "it is no TransReID checkpoint" if family is None else f"the file looks like {family}"
        raise CheckpointError(f"the checkpoint has no classifier.weight; {hint}")
    if classifier.ndim != 2 or not classifier.numel():
        raise CheckpointError(f"classifier.weight is {list(classifier.shape)} instead of [identities, D]")
    return classifier.shape[0]


def _require_same_branches(tensors: Mapping[str, Tensor], settings: Model) -> None:
    has_branches = any(name.startswith(("b1.", "b2.")) for name in tensors)
    if has_branches != settings.jpm:
        raise CheckpointError(
            f"MODEL.JPM is {settings.jpm}, and the checkpoint has {'the' if has_branches else 'no'} branches of JPM "
            f"(b1 and b2); set MODEL.JPM={has_branches} where the file is the right one"
        )


def _require_same_grid(tensors: Mapping[str, Tensor], settings: Model, size: tuple[int, int]) -> None:
    patches = _count_patches(size, settings.stride or PATCH)
    if not 1 <= patches <= _MAXPATCHES:
        raise ConfigError(
            f"INPUT.SIZE_TRAIN {size} and MODEL.STRIDE_SIZE give {patches:,} patches, not 1 to {_MAXPATCHES:,}"
        )
    if settings.jpm and max(settings.jpm_shift, settings.jpm_groups, settings.jpm_parts) > patches:
        raise ConfigError(f"MODEL.SHIFT_NUM, SHUFFLE_GROUP and DEVIDE_LENGTH can be at most the {patches} patches")
    positions = tensors.get("base.pos_embed")
    if positions is not None and positions.ndim == 3 and positions.shape[1] != 1 + patches:
        stored = positions.shape[1] - 1
        strides = [str(stride) for stride in range(8, 17) if _count_patches(size, stride) == stored]
        hint = f"; MODEL.STRIDE_SIZE [{strides[-1]}, {strides[-1]}] would give {stored}" if strides else ""
        raise CheckpointError(
            f"base.pos_embed has {stored} patches, and INPUT.SIZE_TRAIN {size} with MODEL.STRIDE_SIZE "
            f"{settings.stride or PATCH} gives {patches}{hint}"
        )


def _count_patches(size: tuple[int, int], stride: int) -> int:
    """The number of patches of an image; 0 where it is smaller than a patch."""
    height, width = ((pixels - PATCH) // stride + 1 for pixels in size)
    return height * width if min(size) >= PATCH else 0


def _rename(
    tensors: Mapping[str, Tensor], settings: Model, model: TransReID, source: str | Path
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Rename the reference's tensors; also return the names that are left out, and why."""
    left_out = {name: "ImageNet's classifier" for name in tensors if name.startswith(("base.fc.", "base.head."))}
    prefixes: dict[str, str] = {}
    if isinstance(model.backbone, ViT) and settings.jpm:
        last = f"base.blocks.{len(model.backbone.blocks) - 1}."
        left_out |= {name: _UNUSED_WITH_JPM for name in tensors if name.startswith((last, "base.norm."))}
        prefixes = {"b1.0.": last.replace("base", "backbone"), "b1.1.": "backbone.norm."}
        prefixes |= {"b2.0.": "backbone.jpm.block.", "b2.1.": "backbone.jpm.norm."}
    for branch in range(len(model.necks)):
        ending = f"_{branch}" if branch else ""
        prefixes |= {f"classifier{ending}.": f"heads.{branch}.", f"bottleneck{ending}.": f"necks.{branch}."}
    prefixes |= {
        SIE_TABLE: "backbone.sie.table",
        "base.": "backbone." if isinstance(model.backbone, ViT) else "backbone.net.",
    }
    renamed: dict[str, Tensor] = {}
    unexpected: list[str] = []
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if name in left_out:
            continue
        if prefix is None:
            unexpected.append(name)
        elif settings.head != "softmax" and name.startswith("classifier") and name.endswith(".bias"):
            left_out[name] = "a margin head has no bias"
        else:
            new_name = prefixes[prefix] + name.removeprefix(prefix)
            renamed[new_name] = tensor.squeeze(1) if name == SIE_TABLE else tensor
    if unexpected:
        family = family_of(tensors)
        raise CheckpointError(
            f"{source} has tensors that the reference does not have: {shorten(unexpected)}"
            + (f"; the file looks like {family}" if family else "")
        )
    return renamed, left_out
