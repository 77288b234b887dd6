"""A measured ranking in sentences."""

import numpy as np

from resight.evaluation.result import Result
from resight.progress import counted


def in_words(result: Result) -> list[str]:
    """What was done, and what could not be, a sentence a line."""
    protocol, rule, metrics = result.protocol, result.rule, result.metrics
    queries = len(result.trials[0].query_rows)
    lines = [
        f"protocol {protocol.name}: {protocol.words}; {counted(queries, 'query', 'queries')}, "
        f"{counted(result.gallery_size, 'gallery sighting')}",
        f"Not ranked (rule {rule.name}): the query's own file" + (f", and {rule.words}" if rule.clauses else ""),
    ]
    if len(result.trials) > 1:
        lines.append(f"mean of {len(result.trials)} galleries, drawn with seeds 0 to {len(result.trials) - 1}")
        if len({trial.gallery_rows.tobytes() for trial in result.trials}) == 1:
            lines.append("only one gallery can be drawn, so all trials are the same and the spread has no meaning")
    lines += _idle(result)
    if metrics.unmatched:
        by_rule = metrics.unmatched_by_rule
        lines.append(
            f"left out: {counted(metrics.unmatched, 'query', 'queries')} without a match; for {by_rule:,} of them the "
            f"rule removed every match (--junk none keeps them), and for {metrics.unmatched - by_rule:,} the gallery "
            "has none"
        )
    return lines


def _idle(result: Result) -> list[str]:
    """A rule that looks at labels which are not known removes nothing; that should not go unsaid."""
    columns = {column for clause in result.rule.clauses for column in (*clause.same, *clause.other)}
    unknown = [c for c in sorted(columns) if (result.query_labels[c] < 0).all() or (result.gallery_labels[c] < 0).all()]
    if any(clause.seconds is not None for clause in result.rule.clauses):
        times = (result.query_labels.time, result.gallery_labels.time)
        unknown += ["time"] if any(t is None or np.isnan(t).all() for t in times) else []
    if not unknown:
        return []
    return [f"the rule compares {' and '.join(unknown)}, but no sighting has this label: it removes nothing"]
