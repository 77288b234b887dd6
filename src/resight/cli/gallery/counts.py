"""`resight gallery cluster`, `map` and `stats`: what they count and draw."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from resight.cli.gallery import options as kinds
from resight.cli.output import note, show
from resight.errors import ConfigError
from resight.progress import counted, percent

if TYPE_CHECKING:
    from resight.gallery.cluster import Agreement
    from resight.gallery.maintenance import Stats


def cluster(options: kinds.Cluster) -> None:
    """Cluster records, print the numbers of groups, and assign the groups if --assign is given."""
    from resight.gallery.open import open_gallery

    if options.all and options.assign:
        raise ConfigError(
            "--all compares groups with identities, and --assign needs records without one: leave one out"
        )
    with open_gallery(options.gallery) as gallery:
        clustering = gallery.cluster(options.threshold, options.neighbors, options.all)
        assigned = gallery.assign_clusters(clustering, options.assign) if options.assign else 0
        total = len(gallery)
    groups = len(clustering.sizes)
    single = int((clustering.sizes == 1).sum())
    document: dict[str, Any] = {"records": len(clustering.records), "groups": groups, "single": single}
    document |= {"agreement": clustering.agreement} if options.all else {}
    document |= {"assigned": assigned} if options.assign else {}
    if not clustering.records:
        everything = f"all {counted(total, 'record')} have" if total > 1 else "its record has"
        reason = f"{everything} an identity (--all includes them)" if total else "the gallery is empty"
        show(options, document, f"Nothing to cluster: {reason}")
        return
    lines = [
        f"{counted(len(clustering.records), 'record')} in {counted(groups, 'group')}; {single:,} of the groups "
        f"{'has' if single == 1 else 'have'} a single record"
    ]
    if options.all:
        lines.append(_agreement_line(clustering.agreement))
    if assigned:
        lines.append(f"assigned: {options.assign}-1 to {options.assign}-{assigned}")
    show(options, document, *lines)


def _agreement_line(agreement: Agreement) -> str:
    return (
        f"agreement with the identities: F1 of pairs {percent(agreement.f1)} (precision "
        f"{percent(agreement.precision)}, recall {percent(agreement.recall)}), NMI {percent(agreement.nmi)}; "
        f"{counted(agreement.groups, 'group')} for {counted(agreement.labels, 'identity', 'identities')}"
    )


def draw_gallery_map(options: kinds.Map) -> None:
    """Draw the embedding map of a gallery."""
    from resight.gallery.open import open_gallery
    from resight.progress import Progress
    from resight.report.embedding_map import draw_map, embedding_map

    with open_gallery(options.gallery) as gallery, Progress(options.quiet) as progress:
        progress.start("reading the gallery", len(gallery))
        drawn = embedding_map(gallery, options.max_records, options.seed, progress.update)
    draw_map(drawn, options.out, options.colour)
    document = {"points": len(drawn.records), "records": drawn.total, "out": options.out}
    show(options, document, f"{counted(len(drawn.records), 'point')} of {counted(drawn.total, 'record')}")
    note(options, f"drawing: {options.out}")


def stats(options: kinds.Stats) -> None:
    """Print counts of the gallery's records."""
    from resight.gallery.open import open_gallery

    with open_gallery(options.gallery) as gallery:
        counts = gallery.stats()
    show(options, counts, *(f"{title:20s}{text}" for title, text in _stats_rows(counts)))


def _stats_rows(counts: Stats) -> list[tuple[str, str]]:
    def listed(labels: Iterable[str]) -> str:
        return ", ".join(labels) or "none"

    def seconds(time: float | None) -> str:
        return "none" if time is None else f"{time:.2f} s"

    return [
        ("records", f"{counts.records:,}"),
        ("identities", f"{counts.identities:,}"),
        ("without identity", f"{counts.unknown:,}"),
        ("cameras", listed(f"{name} {count:,}" for name, count in counts.cameras.items())),
        ("modalities", listed(f"{name} {count:,}" for name, count in counts.modalities.items())),
        ("first time", seconds(counts.first)),
        ("last time", seconds(counts.last)),
        ("metadata", listed(counts.metadata)),
        ("embedding_id", counts.embedding_id),
        ("model", counts.model or "none"),
    ]
