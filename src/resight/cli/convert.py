"""`resight convert`."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from tyro.conf import Positional

from resight.cli.output import Output, show
from resight.cli.parsing import parse
from resight.config.sections import PartFusion, Pool


@dataclass(frozen=True)
class Convert(Output):
    """Convert a checkpoint of another implementation to a model folder.

    The family of the checkpoint is recognised by the names of its tensors. What no tensor tells is an option below, or
    assumed: the command prints what it assumed.
    """

    checkpoint: Positional[str]
    """A file of torch.save, or a .safetensors file, which is read without running code in it; a folder of roboflow's
    reid, or its address hf://ORG/NAME; or timm:NAME or hf-hub:ORG/NAME to download weights of timm."""
    out: Path
    """Model folder to write; must not exist."""
    config: Path | None = None
    """YAML configuration, for a checkpoint of the reference."""
    options: tuple[str, ...] = ()
    """Options of the reference, such as MODEL.JPM=True; they override the YAML configuration."""
    size: tuple[int, int] | None = None
    """Height and width of the images in pixels; positions are resized where the checkpoint has another grid."""
    stride: int | None = None
    """Pixels from one patch to the next."""
    backbone: str | None = None
    """Name of the backbone, where the tensors fit several."""
    pooling: Pool | None = None
    """How tokens or a feature map become one feature."""
    gem: bool = False
    """The generalised mean (GeM) is part of the feature."""
    gem_power: float | None = None
    """Exponent of a generalised mean that has no tensor in the file."""
    sie_weight: float | None = None
    """Factor of the side information."""
    part_fusion: PartFusion | None = None
    """How class token and part tokens of PASS become an embedding."""
    feature: Literal["before", "after"] | None = None
    """Whether the embedding is taken before or after BNNeck."""
    semantic_weight: float | None = None
    """SOLIDER's weight of semantic against appearance information."""
    stem: Literal["old", "new"] | None = None
    """fast-reid's stem: that of the zoo (until August 2020), or the later one."""
    cameras: int | None = None
    """Number of cameras, if SIE encodes camera and view."""
    views: int | None = None
    """Number of views, if SIE encodes camera and view."""
    view_is_modality: bool = False
    """The views of SIE are modalities: rgb, nir, tir."""
    dataset: str | None = None
    """Data set of the catalog that the cameras and views of SIE belong to. None: the one in DATASETS.NAMES."""


_NOT_OF_A_FAMILY = ("checkpoint", "out", "config", "options", "json")


def run(arguments: list[str]) -> None:
    """Convert, and print what was left out and why, and what was assumed."""
    options = parse(Convert, arguments, "resight convert")
    from resight.models.convert.conversion import require_new_folder
    from resight.models.convert.convert import convert_checkpoint
    from resight.models.convert.options import parse_options, read_options

    require_new_folder(options.out)
    reference_options: dict[str, Any] | None = None
    if options.config is not None or options.options:
        reference_options = read_options(options.config) if options.config is not None else {}
        reference_options |= parse_options(options.options)
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    stated = {
        name: value
        for name, value in values.items()
        if name not in _NOT_OF_A_FAMILY and value is not None and value is not False
    }
    conversion = convert_checkpoint(options.checkpoint, reference_options, **cast(Any, stated))
    conversion.write(options.out)
    count, cameras = len(conversion.model.state_dict()), conversion.card.vocabulary.cameras
    document = {"folder": options.out, "tensors": count, "left_out": conversion.left_out, "notes": conversion.notes}
    lines = [f"left out {name}: {why}" for name, why in conversion.left_out.items()]
    lines += [*conversion.notes, f"{count} tensors in {options.out}"]
    if cameras:
        lines.append(f"cameras are named {cameras[0]} to {cameras[-1]}, as the reference numbers them")
    show(options, {**document, "cameras": cameras}, *lines)
