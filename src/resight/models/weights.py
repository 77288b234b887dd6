"""Tensors from files, without running code that is in them, and pre-trained weights into a backbone."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from resight.errors import CheckpointError
from resight.models.backbones.resnet import ResNet50
from resight.models.backbones.vit import LEGACY_SMALL, ViT

_WRAPPERS = ("state_dict", "model", "teacher")
_CLASSIFIERS = ("head.", "head_dist.", "fc.", "pre_logits.", "dist_token", "mask_token", "fc_norm.")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a `.safetensors` file, or what `torch.save` wrote (a state dict, bare or under `state_dict` or `model`).

    A pickle is read with `weights_only`, so that code in it is refused and never run. `module.` before a name, as
    DataParallel puts it, is taken off.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or holds no tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}")
    try:
        held = _read(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors (its pickle would run code), so it is not read; "
            "save the state dict alone, or convert it to .safetensors where you trust it"
        ) from error
    except (SafetensorError, BadZipFile, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint: {str(error).splitlines()[0]}") from error
    for key in _WRAPPERS:
        if isinstance(held, Mapping) and isinstance(cast(Any, held).get(key), Mapping):
            held = cast(Any, held)[key]
    tensors = (
        {str(k): v for k, v in cast(Any, held).items() if isinstance(v, Tensor)} if isinstance(held, Mapping) else {}
    )
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors by name")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about old pickles; what cannot be read is an error all the same
        return torch.load(path, "cpu", weights_only=True)


def load_pretrained(backbone: ViT | ResNet50, weights: str, name: str) -> list[str]:
    """Loads pre-trained weights, a file or `timm` for timm's own, into a backbone and both of its branches.

    The position embedding is resized bilinearly where the grid differs, as in the reference.

    Args:
        backbone: is changed in place.
        weights: a path, or `timm`.
        name: the backbone's name, for timm and for what an error says.

    Returns:
        the names in the file that have no place in a backbone (its old classifier).

    Raises:
        CheckpointError: the file cannot be read or does not fit; names the keys.
    """
    given = _download(name) if weights == "timm" else read_tensors(Path(weights))
    given = {k.removeprefix("backbone.").removeprefix("base."): v.float() for k, v in given.items()}
    if isinstance(backbone, ResNet50):
        return fit(backbone.net, given, weights, _CLASSIFIERS)
    if "fc_norm.weight" in given and "norm.weight" not in given:
        given |= {"norm.weight": given["fc_norm.weight"], "norm.bias": given["fc_norm.bias"]}
    if "pos_embed" in given:
        given["pos_embed"] = resize_positions(given["pos_embed"], backbone)
    branches = {k: v for k, v in backbone.state_dict().items() if k.startswith(("side.", "jigsaw."))}
    left = fit(backbone, {**branches, **given}, weights, _CLASSIFIERS)
    if backbone.jpm is not None:
        backbone.jpm.block.load_state_dict(backbone.blocks[-1].state_dict())
        backbone.jpm.norm.load_state_dict(backbone.norm.state_dict())
    return left


def resize_positions(positions: Tensor, backbone: ViT) -> Tensor:
    """A position embedding [1, prefix + n, D] of a square grid for the backbone's grid; unchanged where it fits.

    Raises:
        CheckpointError: the grid it was made for is not square.
    """
    if positions.shape[1] == backbone.pos_embed.shape[1]:
        return positions
    prefix = 0 if backbone.no_embed_class else backbone.prefix
    side_info = round((positions.shape[1] - prefix) ** 0.5)
    if side_info * side_info + prefix != positions.shape[1]:
        raise CheckpointError(
            f"the position embedding has {positions.shape[1] - prefix} patches, which is no square grid, "
            f"and {backbone.pos_embed.shape[1] - prefix} are needed"
        )
    grid = list(cast(Any, backbone.patch_embed).grid_size)
    return resample_abs_pos_embed(
        positions, grid, [side_info, side_info], num_prefix_tokens=prefix, interpolation="bilinear", antialias=False
    )


def fit(module: nn.Module, given: Mapping[str, Tensor], source: object, ignored: tuple[str, ...] = ()) -> list[str]:
    """Loads `given` into `module` strictly.

    Returns:
        the names left out, each of which starts with one of `ignored`.

    Raises:
        CheckpointError: names are missing, left over, or of another shape.
    """
    wanted = module.state_dict()
    surplus = [k for k in given if k not in wanted]
    strange = [k for k in surplus if not k.startswith(ignored or ("\0",))]
    missing = [k for k in wanted if k not in given]
    misshapen = [
        f"{k} is {list(given[k].shape)} instead of {list(v.shape)}"
        for k, v in wanted.items()
        if k in given and given[k].shape != v.shape
    ]
    faults = [
        f"{what}: {', '.join(keys[:4])}" + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
        for what, keys in (("of another shape", misshapen), ("missing", missing), ("not known", strange))
        if keys
    ]
    if faults:
        raise CheckpointError(f"{source} does not fit the model; {'; '.join(faults)}")
    module.load_state_dict({k: given[k] for k in wanted})
    return surplus


def _download(name: str) -> dict[str, Tensor]:
    if name == LEGACY_SMALL:
        raise CheckpointError(f"timm has no weights for {name}; give the reference's own file")
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # the hub's client raises many kinds
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"timm could not get pre-trained weights of {name} ({reason}); download them elsewhere and give their file"
        ) from error
