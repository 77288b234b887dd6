"""`resight link`."""

from dataclasses import dataclass

from tyro.conf import Positional

from resight.cli.parsing import parse
from resight.errors import ConfigError


@dataclass(frozen=True)
class Link:
    """Group a gallery's records into identities: those that nobody has named, or all, to see how that agrees."""

    gallery: Positional[str]
    """The gallery."""
    threshold: float | None = None
    """The least mean similarity of what is joined. None: the model's calibrated threshold."""
    neighbors: int = 20
    """Of each record, that it can be joined through."""
    all: bool = False
    """Named records too, as if they were not; says how the groups agree with the names."""
    name: str | None = None
    """Name each group NAME-1, NAME-2, ...; `resight gallery undo` takes one back at a time."""


def run(arguments: list[str]) -> None:
    """Groups, prints what it found, and names groups where wanted."""
    options = parse(Link, arguments, "resight link")
    import numpy as np

    from resight.cli.gallery.actions import open_gallery
    from resight.gallery.cluster import agreement, link

    if options.all and options.name:
        raise ConfigError("--all only compares; --name names records that have none: leave one out")
    gallery = open_gallery(options.gallery)
    threshold = options.threshold
    if threshold is None:
        if gallery.calibration is None:
            raise ConfigError(
                "the gallery's model has no calibration: give --threshold, or run resight calibrate first"
            )
        threshold = gallery.calibration.threshold
    held = [record for record in gallery.engine.scan() if options.all or record.identity is None]
    groups = link(
        np.stack([record.vector for record in held]) if held else np.zeros((0, 1), np.float32),
        threshold,
        [None if r.tracklet is None else (r.camera, r.tracklet) for r in held],
        [None if r.camera is None or r.time is None else (r.camera, r.time) for r in held],
        options.neighbors,
    )
    sizes = np.bincount(groups) if len(groups) else np.zeros(0, int)
    print(f"{len(held)} records, {len(sizes)} identities, {int((sizes == 1).sum())} of them seen once")
    if options.all:
        found = agreement(groups, [record.identity for record in held])
        print(
            f"against names: pairwise F1 {found.f1:.3f} (precision {found.precision:.3f}, recall {found.recall:.3f}), "
            f"NMI {found.nmi:.3f}, {found.groups} groups for {found.labels} identities"
        )
    if options.name:
        for number in range(len(sizes)):
            ids = [held[n].id for n in np.flatnonzero(groups == number)]
            gallery.name(ids, f"{options.name}-{number + 1}")
        print(f"named {options.name}-1 to {options.name}-{len(sizes)}" if len(sizes) else "there was nothing to name")
    gallery.engine.close()
