"""The answers of a search, grouped by identity."""

from collections.abc import Sequence
from dataclasses import dataclass

from resight.gallery.answers import Answer


@dataclass(frozen=True)
class AnswerGroup:
    """The answers that have one identity, or those that have none."""

    identity: str | None
    answers: list[Answer]
    """Nearest first; not empty."""

    @property
    def best(self) -> Answer:
        """The nearest answer."""
        return self.answers[0]


def group_answers(answers: Sequence[Answer]) -> list[AnswerGroup]:
    """Return answers by identity, in the order of the nearest answer of each; those without one are one group."""
    groups: dict[str | None, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.record.identity, []).append(answer)
    return [AnswerGroup(identity, members) for identity, members in groups.items()]


def suggested_identity(groups: Sequence[AnswerGroup]) -> str:
    """Return the identity of the nearest group if it is known to match; else an empty text."""
    first = next((group for group in groups if group.identity is not None), None)
    if first is None or first.identity is None or first.best.known is False:
        return ""
    return first.identity
