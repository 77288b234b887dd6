"""`resight convert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from resight.cli.parsing import parse
from resight.errors import ConfigError


@dataclass(frozen=True)
class Convert:
    """Convert a checkpoint of the reference implementation to a model folder."""

    checkpoint: Positional[Path]
    """A state dict saved with torch.save."""
    out: Path
    """Model folder to write; must not exist."""
    config: Path | None = None
    """YAML configuration of the reference."""
    options: tuple[str, ...] = ()
    """Options of the reference, such as MODEL.JPM=True; they override the YAML configuration."""
    cameras: int | None = None
    """Number of cameras, if SIE encodes camera and view."""
    views: int | None = None
    """Number of views, if SIE encodes camera and view."""
    view_is_modality: bool = False
    """The views of SIE are modalities: rgb, nir, tir."""
    dataset: str | None = None
    """Data set of the catalog that the cameras and views of SIE belong to. None: the one in DATASETS.NAMES."""


def run(arguments: list[str]) -> None:
    """Convert, and print what was left out and why."""
    options = parse(Convert, arguments, "resight convert")
    from resight.models.convert.options import parse_options
    from resight.models.convert.reference import convert_checkpoint, read_options, require_new_folder

    require_new_folder(options.out)
    reference_options: dict[str, Any] = read_options(options.config) if options.config is not None else {}
    reference_options |= parse_options(options.options)
    if not reference_options:
        raise ConfigError("give the reference's options with --config FILE, or --options MODEL.JPM=True ...")
    conversion = convert_checkpoint(
        options.checkpoint, reference_options, options.cameras, options.views, options.view_is_modality, options.dataset
    )
    conversion.write(options.out)
    for name, why in conversion.left_out.items():
        print(f"left out {name}: {why}")
    for note in conversion.notes:
        print(note)
    print(f"{len(conversion.model.state_dict())} tensors in {options.out}")
    if conversion.card.vocabulary.cameras:
        names = conversion.card.vocabulary.cameras
        print(f"cameras are named {names[0]} to {names[-1]}, as the reference numbers them")
