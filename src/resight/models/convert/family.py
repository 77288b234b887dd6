"""What a family of foreign checkpoints is: how it is recognised, how its tensors are named, and what describes it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from resight.config.section import explain
from resight.config.sections import Model, PartFusion, Pixels, Pool, Preprocessing, SideLabel
from resight.data.sightings import MODALITIES
from resight.errors import CheckpointError, ConfigError

Count = Annotated[int, Field(ge=1, le=1_000_000)]


class FamilyOptions(TypedDict, total=False):
    """What the keys of a checkpoint do not tell. Each family takes some of these; one that is left out is assumed."""

    backbone: str
    """Name of the backbone, where the tensors fit several."""
    size: tuple[Pixels, Pixels]
    """Height and width of the images in pixels."""
    stride: Annotated[int, Field(ge=1, le=64)]
    """Pixels from one patch to the next."""
    pooling: Pool
    """How tokens or a feature map become one feature."""
    gem: bool
    """Whether the generalised mean (GeM) is part of the feature."""
    gem_power: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
    """Exponent of a generalised mean that has no tensor."""
    sie_weight: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
    """Factor of the side information."""
    cameras: Count
    """Number of cameras, where side information encodes camera and view."""
    views: Count
    """Number of views, where side information encodes them."""
    view_is_modality: bool
    """Whether the views are modalities: rgb, nir, tir."""
    dataset: str | None
    """Data set of the catalog that the cameras and views belong to."""
    part_fusion: PartFusion
    """How class token and part tokens become an embedding."""
    feature: Literal["before", "after"]
    """Whether the embedding is taken before or after BNNeck."""
    semantic_weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    """SOLIDER's weight of semantic against appearance information."""
    stem: Literal["old", "new"]
    """fast-reid's stem: padding before the max pool (until August 2020), or its ceil mode."""


_ADAPTER: Final = TypeAdapter(FamilyOptions)


@dataclass
class Renamed:
    """A checkpoint's tensors by our names: `backbone.*`, `necks.I.*`, `heads.I.weight`."""

    tensors: dict[str, Tensor]
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    """Names of unused tensors in the checkpoint, and the reasons."""


@dataclass
class Description:
    """The sections of a converted model's card, and what was assumed."""

    model: Model
    preprocessing: Preprocessing
    labels: dict[SideLabel, int] = field(default_factory=dict[SideLabel, int])
    """Number of labels of each kind of side information that the checkpoint has."""
    assumed: list[str] = field(default_factory=list[str])
    """Sentences on what no tensor tells and no option stated."""


@dataclass(frozen=True)
class Family:
    """A family of foreign checkpoints."""

    name: str
    options: frozenset[str]
    """The names in `FamilyOptions` that it takes."""
    matches: Callable[[Mapping[str, Tensor]], bool]
    """Whether tensors are of the family, by their names; no checkpoint may be of two families."""
    rename: Callable[[Mapping[str, Tensor]], Renamed]
    """Give the tensors our names; it depends on nothing but the tensors."""
    describe: Callable[[Mapping[str, Tensor], FamilyOptions], Description]
    """Describe the model, from the tensors and the options."""


def has_name(pattern: str) -> Callable[[Mapping[str, Tensor]], bool]:
    """Return a function that says whether the start of a name fits a regular expression."""

    def matches(tensors: Mapping[str, Tensor]) -> bool:
        return any(re.match(pattern, name) for name in tensors)

    return matches


def check_family_options(family: Family, stated: Mapping[str, Any]) -> FamilyOptions:
    """Check options against a family.

    Raises:
        ConfigError: the family does not have an option, which is named, or a value is invalid.
    """
    for name in stated:
        if name not in family.options:
            known = ", ".join(f"--{known.replace('_', '-')}" for known in sorted(family.options)) or "none"
            raise ConfigError(
                f"--{name.replace('_', '-')} is no option of checkpoints of {family.name}; theirs are: {known}"
            )
    try:
        return _ADAPTER.validate_python(dict(stated))
    except ValidationError as error:
        raise explain(error) from error


def divide_labels(rows: int, options: FamilyOptions) -> tuple[dict[SideLabel, int], list[str]]:
    """Divide the rows of a table of side information among cameras and views, camera by camera.

    Returns:
        the number of labels of each kind with two labels or more, and what was assumed.

    Raises:
        ConfigError: the stated numbers do not give the rows.
    """
    view: SideLabel = "modality" if options.get("view_is_modality") else "view"
    cameras, views = options.get("cameras"), options.get("views")
    if view == "modality" and views is None and cameras is None:
        cameras = 1
    assumed = [f"the {rows} rows of side information are cameras (--views N where they are cameras x views)"]
    if cameras is not None or views is not None:
        assumed = []
    cameras = cameras if cameras is not None else rows // (views or 1)
    views = views if views is not None else rows // cameras
    if cameras * views != rows:
        raise ConfigError(f"the side information has {rows} rows, not {cameras} cameras x {views} views")
    if view == "modality" and views > len(MODALITIES):
        raise ConfigError(f"the side information has {views} views, more than the modalities {', '.join(MODALITIES)}")
    counts: dict[SideLabel, int] = {"camera": cameras, view: views}
    return {kind: count for kind, count in counts.items() if count > 1}, assumed


def rename_prefixes(
    tensors: Mapping[str, Tensor], prefixes: Mapping[str, str], dropped: Mapping[str, str], family: str
) -> Renamed:
    """Rename tensors by the first prefix that fits.

    Args:
        tensors: by the checkpoint's names.
        prefixes: ours, by theirs.
        dropped: reasons, by the prefixes of names that are left out; these come first.
        family: for error messages.

    Raises:
        CheckpointError: a name has none of the prefixes; lists them.
    """
    renamed = Renamed({})
    unexpected = list[str]()
    for name, tensor in tensors.items():
        reason = next((reason for prefix, reason in dropped.items() if name.startswith(prefix)), None)
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if reason is not None:
            renamed.left_out[name] = reason
        elif prefix is None:
            unexpected.append(name)
        else:
            renamed.tensors[prefixes[prefix] + name.removeprefix(prefix)] = tensor
    if unexpected:
        more = f" and {len(unexpected) - 4} more" if len(unexpected) > 4 else ""
        raise CheckpointError(
            f"the checkpoint has tensors that {family} does not have: {', '.join(unexpected[:4])}{more}"
        )
    return renamed


def require_shape(tensors: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    """Return the shape of a tensor that a description depends on.

    Raises:
        CheckpointError: the checkpoint does not have it, or it has another number of dimensions or none of a size.
    """
    if name not in tensors:
        raise CheckpointError(f"the checkpoint does not have {name}, so its network is not known")
    shape = tuple(tensors[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise CheckpointError(f"{name} is {list(shape)}, not a tensor of {dimensions} dimensions")
    return shape
