"""The sightings of an identity on a time line, one lane for each camera."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from resight.gallery.record import Record

_MARGIN: Final = 2.0  # percent of the width that stay free at both ends


@dataclass(frozen=True)
class Lane:
    """One camera's sightings."""

    camera: str | None
    records: list[Record]
    points: list[tuple[float, Record]]
    """Position in percent of the width, of the records that have a time."""


def lanes_of(records: Sequence[Record]) -> list[Lane]:
    """Return a lane for each camera, in the order of the cameras' names, those without a camera last.

    Args:
        records: of one identity, by time.
    """
    times = [record.time for record in records if record.time is not None]
    first = min(times, default=0.0)
    span = max(times, default=0.0) - first
    by_camera: dict[str | None, list[Record]] = {}
    for record in records:
        by_camera.setdefault(record.camera, []).append(record)
    ordered = sorted(by_camera, key=lambda camera: (camera is None, camera or ""))
    return [Lane(camera, by_camera[camera], _points(by_camera[camera], first, span)) for camera in ordered]


def _points(records: Sequence[Record], first: float, span: float) -> list[tuple[float, Record]]:
    def position(time: float) -> float:
        fraction = (time - first) / span if span else 0.5
        return round(_MARGIN + fraction * (100 - 2 * _MARGIN), 3)

    return [(position(record.time), record) for record in records if record.time is not None]
