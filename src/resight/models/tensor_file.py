"""Read tensors from files without running code in them."""

import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from resight.errors import CheckpointError
from resight.models.pickle_scan import check_pickles
from resight.progress import counted

_WRAPPERS: Final = ("state_dict", "model", "model_state_dict", "teacher", "student", "target_encoder", "module")
_IGNORED: Final = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
)
_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself (git lfs pull downloads it)"),
    (b"<", "an HTML or XML page, perhaps of a download that failed"),
)


class _Ignored:
    """Stands for the settings of a training and for numbers of numpy, which are not needed and never built."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` file, or of a state dict that `torch.save` wrote.

    The state dict may be the file's whole content or stored under `state_dict`, `model` or `teacher`. A pickle is read
    with `weights_only`, so that code in it is refused and never run; beside tensors and plain values only numpy's
    numbers and argparse.Namespace are allowed, and they are left out. The prefix `module.` of DataParallel is removed
    from names.

    Raises:
        CheckpointError: the file is missing, corrupt, unsafe, of another type, contains no tensors, or tensors that
            do not have all their values.
    """
    _require_type(path)
    try:
        content = _read(path)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refused(path, str(error))) from error
    except LookupError as error:
        raise CheckpointError(f"{path} is corrupt or no checkpoint: its pickle is incomplete") from error
    except Exception as error:  # a corrupt pickle or zip file raises exceptions of many types
        reason = next(iter(str(error).splitlines()), "")
        reason = type(error).__name__ if "weights_only" in reason or not reason else reason[:200]
        raise CheckpointError(f"{path} is corrupt or no checkpoint: {reason}") from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(cast(Any, content).get(key), Mapping):
            content = cast(Any, content)[key]
    entries = cast(Any, content).items() if isinstance(content, Mapping) else ()
    tensors = {name: value for name, value in entries if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors by name")
    _require_values(tensors, path)
    return without_prefixes(tensors, ("module.",), path)


def without_prefixes(tensors: Mapping[str, Tensor], prefixes: Iterable[str], source: object) -> dict[str, Tensor]:
    """Remove each prefix from the names that have it.

    Raises:
        CheckpointError: two tensors then have the same name.
    """
    first_names: dict[str, str] = {}
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = name
        for prefix in prefixes:
            short = short.removeprefix(prefix)
        if short in renamed:
            raise CheckpointError(
                f"{source} has both {first_names[short]} and {name}, which are names of the same tensor; remove one"
            )
        first_names[short] = name
        renamed[short] = tensor
    return renamed


def _require_type(path: Path) -> None:
    """Refuse files of another type by the first bytes, before they are read."""
    try:
        if path.is_dir() or not path.exists():
            raise CheckpointError(f"there is no checkpoint at {path}" + (": it is a folder" if path.is_dir() else ""))
        if not path.is_file():
            raise CheckpointError(f"there is no checkpoint at {path}: it is not a regular file")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    actual = _type(head, size)
    expected = "safetensors" if path.suffix == ".safetensors" else "torch"
    if actual == "safetensors" != expected:
        raise CheckpointError(f"{path} is a safetensors file, not one of torch.save: name it {path.stem}.safetensors")
    if actual == "torch" != expected:
        raise CheckpointError(f"{path} is a file of torch.save or a zip archive, not a safetensors file: name it .pth")
    if actual not in ("safetensors", "torch"):
        raise CheckpointError(f"{path} is corrupt or no checkpoint: it is {actual}")


def _type(head: bytes, size: int) -> str:
    if not head:
        return "empty"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        return "safetensors"
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        return "torch"
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP image"
    text = head.decode(errors="ignore")  # the last character may be incomplete
    is_text = len(text.encode()) >= len(head) - 3 and all(c.isprintable() or c.isspace() for c in text)
    return "a text file" if is_text else "of no type that is known"


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    check_pickles(path)
    with warnings.catch_warnings(), torch.serialization.safe_globals([(_Ignored, name) for name in _IGNORED]):
        warnings.simplefilter("ignore")  # about old pickles; a file that cannot be read still raises an error
        return torch.load(path, "cpu", weights_only=True)


def _refused(path: Path, reason: str) -> str:
    """Say why a pickle is refused, without torch's advice to read it in an unsafe way."""
    name = re.search(r"GLOBAL (\S+)", reason)
    if name is None:
        return (
            f"{path} is corrupt, or was saved with another pickle protocol than torch.save's own: save it again with "
            "torch.save and no pickle_protocol"
        )
    return (
        f"{path} contains {name[1][:100]}, so it is not read: anything but tensors, plain values, numpy's numbers and "
        "argparse.Namespace could run code; save the state dict alone, or convert it to .safetensors where you trust it"
    )


def _require_values(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that have no value of their own in memory for each of their elements."""
    storages: dict[int, int] = {}
    for name, tensor in tensors.items():
        kind = _special_kind(tensor)
        if kind is not None:
            raise CheckpointError(f"{path} has {kind} as {name}; save ordinary (dense) tensors")
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        repeats = any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        if repeats or storage.nbytes() < tensor.numel() * tensor.element_size():
            raise CheckpointError(
                f"{path} has an expanded tensor as {name}: its shape is {list(tensor.shape)}, and the file stores only "
                f"{counted(storage.nbytes() // tensor.element_size(), 'value')} of it; save it with .contiguous()"
            )
    if sum(storages.values()) > path.stat().st_size:
        raise CheckpointError(f"{path} is corrupt: its tensors are larger than the file")


def _special_kind(tensor: Tensor) -> str | None:
    if type(tensor) not in (Tensor, nn.Parameter):
        return f"a {type(tensor).__name__}"
    if tensor.is_meta:
        return "a meta tensor, which has no values,"
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        return "a sparse tensor"
    return "a quantized tensor" if tensor.is_quantized else None
