"""`resight convert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tyro.conf import Positional

from resight.cli.parsing import parse
from resight.errors import ConfigError


@dataclass(frozen=True)
class Convert:
    """Turn a checkpoint of the reference implementation into a model folder."""

    checkpoint: Positional[Path]
    """A state dict saved with torch.save."""
    out: Path
    """The model folder to write; must not exist."""
    config: Path | None = None
    """The reference's YAML."""
    options: tuple[str, ...] = ()
    """The reference's options by its own names, such as MODEL.JPM=True; they go before the YAML's."""
    cameras: int | None = None
    """Number of cameras, where SIE tells both camera and view."""
    views: int | None = None
    """Number of views, likewise."""
    view_is_modality: bool = False
    """The views that SIE tells are modalities: rgb, nir, tir."""
    dataset: str | None = None
    """The data set of the catalog whose cameras and views SIE knows. None: as DATASETS.NAMES says."""


def run(arguments: list[str]) -> None:
    """Converts, and says what was left out and why."""
    given = parse(Convert, arguments, "resight convert")
    from resight.models.convert.reference import convert_checkpoint, read_options

    chosen: dict[str, Any] = read_options(given.config) if given.config is not None else {}
    for option in given.options:
        name, equals, value = option.partition("=")
        if not equals:
            raise ConfigError(f"the option {option!r} is not of the form NAME=VALUE, such as MODEL.JPM=True")
        chosen[name] = yaml.safe_load(value)
    if not chosen:
        raise ConfigError("give the reference's options with --config FILE, or --options MODEL.JPM=True ...")
    found = convert_checkpoint(
        given.checkpoint, chosen, given.cameras, given.views, given.view_is_modality, given.dataset
    )
    found.write(given.out)
    for name, why in found.left_out.items():
        print(f"left out {name}: {why}")
    for note in found.notes:
        print(note)
    print(f"{len(found.model.state_dict())} tensors in {given.out}")
    if found.card.vocabulary.cameras:
        names = found.card.vocabulary.cameras
        print(f"cameras are named {names[0]} to {names[-1]}, as the reference numbers them")
