"""Read tensors from files without running code in them, and load pre-trained weights into a backbone."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors.torch import load_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from resight.errors import CheckpointError
from resight.models.backbones.resnet import ResNet50
from resight.models.backbones.vit import LEGACY_SMALL, ViT

_WRAPPERS = ("state_dict", "model", "teacher")
_CLASSIFIERS = ("head.", "head_dist.", "fc.", "pre_logits.", "dist_token", "mask_token", "fc_norm.")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` file, or of a state dict that `torch.save` wrote.

    The state dict may be the file's whole content or stored under `state_dict`, `model` or `teacher`. A pickle is read
    with `weights_only`, so that code in it is refused and never run. The prefix `module.` of DataParallel is removed
    from names.

    Raises:
        CheckpointError: the file is missing, corrupt, unsafe, or contains no tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}")
    try:
        content = _read(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors (its pickle would run code), so it is not read; "
            "save the state dict alone, or convert it to .safetensors where you trust it"
        ) from error
    except Exception as error:  # a corrupt pickle or zip file raises exceptions of many types
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{path} is corrupt or no checkpoint: {reason}") from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(cast(Any, content).get(key), Mapping):
            content = cast(Any, content)[key]
    entries = cast(Any, content).items() if isinstance(content, Mapping) else ()
    tensors = {str(name): value for name, value in entries if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors by name")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about old pickles; a file that cannot be read still raises an error
        return torch.load(path, "cpu", weights_only=True)


def load_pretrained(backbone: ViT | ResNet50, weights: str, name: str) -> list[str]:
    """Load pre-trained weights into a backbone and both of its branches.

    The position embedding is resized bilinearly where the grid differs, as in the reference.

    Args:
        backbone: is changed in place.
        weights: the path of a file, or `timm` to download timm's weights.
        name: the backbone's name, for timm and for error messages.

    Returns:
        the names in the file that a backbone has no tensor for, those of its old classifier.

    Raises:
        CheckpointError: the file cannot be read or does not fit; lists the names.
    """
    tensors = _download(name) if weights == "timm" else read_tensors(Path(weights))
    tensors = {k.removeprefix("backbone.").removeprefix("base."): v.float() for k, v in tensors.items()}
    if isinstance(backbone, ResNet50):
        return fit(backbone.net, tensors, weights, _CLASSIFIERS)
    # Convert what differs in the file: the name of the last norm, the grid of positions.
    if "fc_norm.weight" in tensors and "norm.weight" not in tensors:
        tensors |= {"norm.weight": tensors["fc_norm.weight"], "norm.bias": tensors["fc_norm.bias"]}
    if "pos_embed" in tensors:
        tensors["pos_embed"] = resize_positions(tensors["pos_embed"], backbone)
    # Load the backbone; SIE and JPM, which no file has, keep their values for now.
    branches = {k: v for k, v in backbone.state_dict().items() if k.startswith(("sie.", "jpm."))}
    left_out = fit(backbone, {**branches, **tensors}, weights, _CLASSIFIERS)
    # Copy the last block to the local branch.
    if backbone.jpm is not None:
        backbone.jpm.block.load_state_dict(backbone.blocks[-1].state_dict())
        backbone.jpm.norm.load_state_dict(backbone.norm.state_dict())
    return left_out


def resize_positions(positions: Tensor, backbone: ViT) -> Tensor:
    """Resize a position embedding of a square grid to the backbone's grid: [1, prefix + n, D] -> [1, prefix + N, D].

    It is returned unchanged where it already has the backbone's size.

    Raises:
        CheckpointError: its grid is not square.
    """
    if positions.shape[1] == backbone.pos_embed.shape[1]:
        return positions
    prefix = 0 if backbone.no_embed_class else backbone.prefix
    grid_width = round((positions.shape[1] - prefix) ** 0.5)
    if grid_width * grid_width + prefix != positions.shape[1]:
        raise CheckpointError(
            f"the position embedding has {positions.shape[1] - prefix} patches, which is no square grid, "
            f"and {backbone.pos_embed.shape[1] - prefix} are needed"
        )
    grid = list(cast(Any, backbone.patch_embed).grid_size)
    return resample_abs_pos_embed(
        positions, grid, [grid_width, grid_width], num_prefix_tokens=prefix, interpolation="bilinear", antialias=False
    )


def fit(module: nn.Module, tensors: Mapping[str, Tensor], source: object, ignored: tuple[str, ...] = ()) -> list[str]:
    """Load tensors into a module, by name and strictly.

    Args:
        module: is changed in place.
        tensors: by name.
        source: where the tensors come from, for error messages.
        ignored: prefixes of names that the module need not have.

    Returns:
        the names that were left out, each of which has a prefix in `ignored`.

    Raises:
        CheckpointError: names are missing or unknown, or tensors have another shape or numbers that are not finite;
            lists them.
    """
    expected = module.state_dict()
    left_out = [name for name in tensors if name not in expected]
    unexpected = [name for name in left_out if not name.startswith(ignored or ("\0",))]
    missing = [name for name in expected if name not in tensors]
    misshapen = [
        f"{name} is {list(tensors[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    problems = [
        f"{problem}: {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        for problem, names in (("of another shape", misshapen), ("missing", missing), ("not known", unexpected))
        if names
    ]
    if problems:
        raise CheckpointError(f"{source} does not fit the model; {'; '.join(problems)}")
    require_finite({name: tensors[name] for name in expected}, source)
    module.load_state_dict({name: tensors[name] for name in expected})
    return left_out


def require_finite(tensors: Mapping[str, Tensor], source: object) -> None:
    """Refuse tensors with NaN or infinite numbers.

    Args:
        tensors: by name.
        source: where the tensors come from, for error messages.

    Raises:
        CheckpointError: a number is not finite; lists the names.
    """
    # A sum is 15 times as fast as `isfinite`, and is finite unless a number is not, or the sum overflows.
    suspects = {name: tensor for name, tensor in tensors.items() if not bool(tensor.sum().isfinite())}
    names = [name for name, tensor in suspects.items() if not bool(tensor.isfinite().all())]
    if names:
        listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        raise CheckpointError(
            f"{source} has weights that are NaN or infinite, in {listed}: use a checkpoint from before that, or train "
            "again with a lower learning rate"
        )


def _download(name: str) -> dict[str, Tensor]:
    if name == LEGACY_SMALL:
        raise CheckpointError(f"timm has no weights for {name}; give the reference's own file")
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # the client of the Hugging Face Hub raises exceptions of many types
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"timm could not get pre-trained weights of {name} ({reason}); download them elsewhere and give their file"
        ) from error
