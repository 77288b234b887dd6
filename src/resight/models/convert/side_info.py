"""The side information (SIE) of a checkpoint of the reference: how many cameras and views it has, and their names."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from resight.config.sections import SideLabel
from resight.data.sightings import MODALITIES
from resight.data.vocabulary import Vocabulary
from resight.errors import CheckpointError, ConfigError

SIE_TABLE = "base.sie_embed"


def count_labels(
    tensors: Mapping[str, Tensor], kinds: Sequence[SideLabel], cameras: int | None, views: int | None
) -> dict[SideLabel, int]:
    """Count the labels of each kind of side information; none where the reference had no SIE.

    Args:
        tensors: of the checkpoint.
        kinds: that the options name.
        cameras: that the user states.
        views: that the user states; or modalities.

    Raises:
        CheckpointError: the checkpoint and the options differ about SIE.
        ConfigError: what the user states does not fit.
    """
    stated = {kind: cameras if kind == "camera" else views for kind in kinds}
    for option, number, applies in (
        ("--cameras", cameras, "camera" in kinds),
        ("--views", views, bool({"view", "modality"} & set(kinds))),
    ):
        if number is not None and not applies:
            raise ConfigError(f"{option} {number} needs MODEL.SIE_{'CAMERA' if option == '--cameras' else 'VIEW'}=True")
        if number is not None and number < 1:
            raise ConfigError(f"{option} {number} is invalid: it takes a number from 1")
    if SIE_TABLE not in tensors:
        if any(number != 1 for number in stated.values()):  # with one camera or view the reference has no SIE
            raise CheckpointError(
                f"the options have SIE ({', '.join(kinds)}) and the checkpoint has none ({SIE_TABLE}); set "
                "MODEL.SIE_CAMERA and MODEL.SIE_VIEW to False, or give --cameras 1 or --views 1 where that is true"
            )
        return {}
    if not kinds:
        raise CheckpointError(
            "the checkpoint has SIE and the options have none; set MODEL.SIE_CAMERA or MODEL.SIE_VIEW"
        )
    shape = list(tensors[SIE_TABLE].shape)
    if len(shape) != 3 or shape[0] < 2 or shape[1] != 1:
        raise CheckpointError(f"{SIE_TABLE} is {shape} instead of [rows, 1, D] with 2 rows or more")
    return _divide(shape[0], kinds, cameras, views)


def _divide(rows: int, kinds: Sequence[SideLabel], cameras: int | None, views: int | None) -> dict[SideLabel, int]:
    """Divide the rows of SIE, camera x view, among the kinds."""
    if len(kinds) == 1:
        stated = cameras if kinds[0] == "camera" else views
        if stated not in (None, rows):
            raise ConfigError(f"SIE has {rows} rows, one for each {kinds[0]}, and {stated} are stated")
        counts: dict[SideLabel, int] = {kinds[0]: rows}
    else:
        cameras = cameras or rows // (views or rows)
        counts = {kinds[0]: cameras, kinds[1]: rows // cameras}
        if cameras * (rows // cameras) != rows or 1 in counts.values() or views not in (None, rows // cameras):
            raise ConfigError(f"SIE has {rows} rows of camera x view; give the number of cameras with --cameras")
    if counts.get("modality", 1) > len(MODALITIES):
        raise ConfigError(f"SIE has {rows} rows, more than the modalities {', '.join(MODALITIES)}")
    return counts


def name_labels(classes: int, counts: Mapping[SideLabel, int], owner: str | None) -> Vocabulary:
    """Name labels in the reference's order: it numbers cameras from 1, and does not store the names of identities.

    Args:
        classes: number of identities.
        counts: number of labels of each kind.
        owner: the data set that cameras and views are named after, as `read_dataset` names them.
    """
    identities = tuple(f"{i:0{len(str(classes - 1))}d}" for i in range(classes))
    prefix = f"{owner}:" if owner else ""
    digits, first_view = (3, 0) if owner == "veri776" else (1, 1)  # VeRi-776 has cameras 001 to 020 and views 0 to 7
    camera_names = tuple(f"{prefix}{i + 1:0{digits}d}" for i in range(counts.get("camera", 0)))
    view_names = tuple(f"{prefix}{i + first_view}" for i in range(counts.get("view", 0)))
    return Vocabulary(identities, camera_names, view_names, MODALITIES[: counts.get("modality", 1)])
