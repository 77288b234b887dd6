"""Download a model from the Hub: the files that are needed, and no others; never a pickle."""

import json
from pathlib import Path
from typing import Any, Final, cast

from resight.errors import CheckpointError
from resight.models.calibration import CALIBRATION
from resight.models.checkpoint import CARD, WEIGHTS, read_card
from resight.models.convert.reid_folder import REID_CARD, REID_WEIGHTS, is_reid_folder
from resight.models.hub.address import HubAddress, is_hub_address, parse_address
from resight.models.hub.client import USER, downloading

PAGE: Final = "README.md"
_TEXTS: Final = (CARD, REID_CARD, CALIBRATION, PAGE)
_LARGEST_TEXT: Final = 64 << 20  # bytes


def local_folder(model: str | Path) -> Path:
    """Return a model's folder; one with an address on the Hub is downloaded, unless it is in the cache.

    Args:
        model: a path, or `hf://ORG/NAME` or `hf://ORG/NAME@REVISION`. Only for such an address is the Hub asked.

    Raises:
        ConfigError: the address is invalid.
        CheckpointError: the Hub cannot be reached, or has no such model, revision, or files of a model there.
    """
    return download_model(parse_address(model)) if is_hub_address(model) else Path(model)


def download_model(address: HubAddress) -> Path:
    """Download a model folder of ours, or a folder of roboflow's `reid`, into the cache of the Hub's client.

    The description is downloaded first and checked, the weights (`.safetensors`) after that.

    Raises:
        CheckpointError: as `local_folder`.
    """
    with downloading(address):
        folder = _download_texts(address)
    if (folder / CARD).is_file() and not _is_of_timm(folder / CARD):
        read_card(folder)
        weights = WEIGHTS
    elif is_reid_folder(folder):
        weights = REID_WEIGHTS
    elif (folder / CARD).is_file():
        raise CheckpointError(
            f"{address} is a network of timm, not a model for re-identification: fine-tune it with --model.backbone "
            f"hf-hub:{str(address).removeprefix('hf://')}, or convert it with resight convert"
        )
    else:
        raise CheckpointError(f"{address} has no model that resight reads: no {CARD} or {REID_CARD} of one")
    download_file(address, weights, folder.name)
    return folder


def download_file(address: HubAddress, name: str, commit: str) -> Path:
    """Download one file of a commit; one that is in the cache is not downloaded again.

    Raises:
        CheckpointError: the repository has no such file, or the Hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with downloading(address):
        try:
            return Path(hf_hub_download(address.repository, name, revision=commit, **USER))
        except RemoteEntryNotFoundError as error:
            raise CheckpointError(f"{address} has no {name}; weights are read from .safetensors files alone") from error


def download_texts(address: HubAddress) -> Path:
    """Download the descriptions of a model, and return their folder, whose name is the commit.

    Raises:
        CheckpointError: the Hub cannot be reached, or has no such repository or revision.
    """
    with downloading(address):
        return _download_texts(address)


def _download_texts(address: HubAddress) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm

    class Silent(tqdm):  # it takes an instant, and its bars would be printed at every use
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})

    folder = snapshot_download(
        address.repository, revision=address.revision, allow_patterns=list(_TEXTS), tqdm_class=Silent,
        **USER,
    )  # fmt: skip
    return Path(folder)


def _is_of_timm(card: Path) -> bool:
    """Whether a `config.json` describes a network of timm."""
    if card.stat().st_size > _LARGEST_TEXT:
        return False
    try:
        content = json.loads(card.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "architecture" in content and "format" not in cast("dict[str, Any]", content)
