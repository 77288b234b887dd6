"""Networks of timm with weights on the Hub, by timm's names `hf-hub:ORG/NAME`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import timm
from torch import Tensor

from resight.config.sections import Model
from resight.errors import CheckpointError
from resight.models.checkpoint import CARD, WEIGHTS
from resight.models.hub.address import TIMM_PREFIX, parse_timm_address
from resight.models.hub.download import download_file, download_texts
from resight.models.tensor_file import read_tensors

_BUILT_IN: Final = ("img_size", "num_classes", "global_pool")  # arguments that a backbone sets by itself


@dataclass(frozen=True)
class HubTimm:
    """A repository of timm's: the network that timm has under a name, and its weights."""

    architecture: str
    """timm's name, which needs no network to be built."""
    settings: dict[str, Any]
    """What timm says about preprocessing."""
    file: Path
    """The weights, `model.safetensors`."""

    def tensors(self) -> dict[str, Tensor]:
        """Read the weights. timm itself would leave random what is missing in the file; whoever uses them must not.

        Raises:
            CheckpointError: the file is corrupt.
        """
        return read_tensors(self.file)


def is_timm_address(name: str) -> bool:
    """Return whether a name is one of timm's for the Hub."""
    return name.startswith(TIMM_PREFIX)


def read_hub_timm(name: str) -> HubTimm:
    """Download the description and the weights of `hf-hub:ORG/NAME`; what is in the cache is not downloaded again.

    Raises:
        ConfigError: the name is invalid.
        CheckpointError: the Hub cannot be reached, or has no network of timm under that name.
    """
    address = parse_timm_address(name)
    folder = download_texts(address)
    architecture, settings = _read_config(folder / CARD, name)
    return HubTimm(architecture, settings, download_file(address, WEIGHTS, folder.name))


def resolve_backbone(settings: Model) -> Model:
    """Return the section with timm's name of the network, where its backbone is `hf-hub:ORG/NAME`.

    Only the description of the network is downloaded, and only for such a name.

    Raises:
        ConfigError: the name is invalid.
        CheckpointError: as `read_hub_timm`.
    """
    if not is_timm_address(settings.backbone):
        return settings
    card = download_texts(parse_timm_address(settings.backbone)) / CARD
    return settings.changed(backbone=_read_config(card, settings.backbone)[0])


def _read_config(file: Path, name: str) -> tuple[str, dict[str, Any]]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{name} has no {CARD}, so it is no network of timm") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is no network of timm: its {CARD} is no JSON") from error
    fields = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    architecture, settings = fields.get("architecture"), fields.get("pretrained_cfg")
    if not isinstance(architecture, str) or not isinstance(settings, dict) or not timm.is_model(architecture):
        raise CheckpointError(f"{name} is no network that timm {timm.__version__} has: see its {CARD}")
    arguments = [argument for argument in fields.get("model_args") or () if argument not in _BUILT_IN]
    if arguments:
        raise CheckpointError(f"{name} changes {architecture} by {', '.join(arguments)}, which is not supported")
    return architecture, cast("dict[str, Any]", settings)
