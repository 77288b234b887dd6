"""A measured ranking as figures that can be kept and compared, and as sentences."""

from dataclasses import asdict
from typing import Any

import numpy as np

from resight.data.sightings import MODALITIES, Sighting
from resight.evaluation.evaluate import Result
from resight.retrieval.bootstrap import interval
from resight.retrieval.metrics import rank


def figures(result: Result, dataset: str) -> dict[str, Any]:
    """Everything that was measured, for `result.json` and `evaluate --json`; rates are in [0, 1].

    The means over the trials, their spread, 95 % intervals over query identities, and what each query came to.
    """
    ap, hit, identity = result.ap, result.hit, result.query_labels.identity
    intervals = {name: interval(values, identity) for name, values in (("mAP", ap), ("R1", hit))}
    cmc = np.mean([trial.metrics.cmc for trial in result.trials], axis=0)
    return {
        "dataset": dataset,
        "protocol": result.protocol.name,
        "junk": result.rule.name,
        "queries": len(result.trials[0].asked),
        "gallery": _sizes(result),
        **result.summary(),
        "trials": len(result.trials),
        "spread": result.spread(),
        "interval_95": {name: [found.low, found.high] for name, found in intervals.items()},
        "cmc": cmc.tolist(),
        **({} if result.compute is None else {"compute": asdict(result.compute)}),
        "unmatched": result.metrics.unmatched,
        "unmatched_by_rule": result.metrics.unmatched_by_rule,
        "per_query": [
            {"query": _name(sighting), "identity": sighting.identity, "AP": _number(a), "R1": _number(h)}
            for sighting, a, h in zip(result.query.sightings, ap, hit, strict=True)
        ],
    }


def in_words(result: Result) -> list[str]:
    """What was done, and what could not be, a sentence a line."""
    protocol, rule, metrics = result.protocol, result.rule, result.metrics
    asked = len(result.trials[0].asked)
    lines = [
        f"protocol {protocol.name}: {protocol.words}; {asked} queries, {_sizes(result)} gallery sightings",
        f"junk rule {rule.name}: left out of a query's ranking are its own file"
        + (f" and {rule.words}" if rule.clauses else ""),
    ]
    if len(result.trials) > 1:
        lines.append(f"mean of {len(result.trials)} galleries, drawn with seeds 0 to {len(result.trials) - 1}")
    lines += _idle(result)
    if metrics.unmatched:
        by_rule = metrics.unmatched_by_rule
        lines.append(
            f"{metrics.unmatched} queries have no match and are left out: of {by_rule} the rule removed every match "
            f"(--junk none keeps them), {metrics.unmatched - by_rule} have none in the gallery"
        )
    return lines


def camera_pairs(result: Result) -> list[dict[str, Any]]:
    """How well each camera's queries find their matches among each other camera's pictures alone, worst first."""
    found = list[dict[str, Any]]()
    asked, pool = result.trials[0].asked, result.trials[0].searched
    query, gallery = result.query_labels.take(asked), result.gallery_labels
    asks, searched = query["camera"], gallery["camera"][pool]
    for camera in np.unique(searched[searched >= 0]):
        rows = pool[searched == camera]
        metrics = rank(result.score(asked, rows), query, gallery.take(rows), result.rule, result.protocol.once)
        for own in np.unique(asks[(asks >= 0) & metrics.valid]):
            some = (asks == own) & metrics.valid
            found.append(
                {
                    "query camera": query.name("camera", int(own)),
                    "gallery camera": gallery.name("camera", int(camera)),
                    "queries": int(some.sum()),
                    "mAP": float(metrics.ap[some].mean()),
                    "R1": float((metrics.first[some] == 1).mean()),
                }
            )
    return sorted(found, key=lambda row: row["mAP"])


def _idle(result: Result) -> list[str]:
    """A rule that looks at labels which are not known removes nothing; that should not go unsaid."""
    columns = {column for clause in result.rule.clauses for column in (*clause.same, *clause.other)}
    unknown = [c for c in sorted(columns) if (result.query_labels[c] < 0).all() or (result.gallery_labels[c] < 0).all()]
    if any(clause.seconds is not None for clause in result.rule.clauses):
        times = (result.query_labels.time, result.gallery_labels.time)
        unknown += ["time"] if any(t is None or np.isnan(t).all() for t in times) else []
    return (
        [f"the rule looks at {' and '.join(unknown)}, which no sighting here has: that removes nothing"]
        if unknown
        else []
    )


def _sizes(result: Result) -> int:
    return max(len(ranking.gallery) for ranking in result.trials[0].rankings)


def _name(sighting: Sighting) -> str:
    return "|".join(sighting.images[m].name for m in MODALITIES if m in sighting.images)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
