"""Which gallery items a query's ranking leaves out (junk), as data: a rule is a few clauses."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from resight.config.sections import JunkRule
from resight.retrieval.labels import Labels, compound

Pairs = tuple[np.ndarray, np.ndarray]
"""Rows of queries and of gallery items, int64 [n] each, that belong together."""


@dataclass(frozen=True)
class Clause:
    """Junk is what has these labels in common with the query."""

    same: tuple[str, ...]
    """Columns in which both are known and equal."""
    other: tuple[str, ...] = ()
    """Columns in which both are known and differ."""
    seconds: float | None = None
    """Both were seen within this time of each other."""


@dataclass(frozen=True)
class Rule:
    """An item is junk for a query when any clause holds, or when it is the query's own file."""

    name: str
    words: str
    """What is left out of a query's ranking."""
    source: str
    """The protocol that asks for it."""
    clauses: tuple[Clause, ...] = ()

    def within(self, seconds: float) -> "Rule":
        """The same rule with another time window, where it has one."""
        clauses = (c if c.seconds is None else replace(c, seconds=seconds) for c in self.clauses)
        return replace(self, clauses=tuple(clauses))


ITSELF = Clause(("picture",))
_MARKET = "Market-1501 (Zheng et al. 2015)"
_RULES = (
    Rule("none", "nothing", "VehicleID, RegDB, PRCC"),
    Rule("same-camera", "its identity under its own camera", _MARKET, (Clause(("identity", "camera")),)),
    Rule(
        "same-scene", "its identity in its own scene", "MSVR310 (Zheng et al. 2022)", (Clause(("identity", "scene")),)
    ),
    Rule(
        "same-camera-or-clothes",
        "its identity under its own camera or in its own clothes",
        "LTCC, clothes-changing (Qian et al. 2020)",
        (Clause(("identity", "camera")), Clause(("identity", "clothes"))),
    ),
    Rule(
        "same-camera-or-other-clothes",
        "its identity under its own camera or in other clothes",
        "LTCC, same clothes (Gu et al. 2022)",
        (Clause(("identity", "camera")), Clause(("identity",), other=("clothes",))),
    ),
    Rule(
        "same-place",
        "everything from its own scene, whoever it shows",
        "SYSU-MM01 (Wu et al. 2017)",
        (Clause(("scene",)),),
    ),
    Rule("same-tracklet", "its own sequence", "video and camera-trap bursts", (Clause(("tracklet",)),)),
    Rule(
        "time-window",
        "its identity within the time window",
        "camera traps: one visit is one event",
        (Clause(("identity",), seconds=3600.0),),
    ),
)
RULES: Final[Mapping[str, Rule]] = {rule.name: rule for rule in _RULES}


def rule_of(name: JunkRule, seconds: float) -> Rule:
    """The rule of that name; `seconds` is the window of `time-window`."""
    return RULES[name].within(seconds)


def matching(query: Labels, gallery: Labels, rule: Rule) -> tuple[Pairs, np.ndarray]:
    """Every query's matches: pairs of the same identity that are not junk, by query and then by gallery row.

    Returns:
        the pairs; and bool [Q], the queries that have matches beside their own file and lost every one to the rule.
    """
    asked, searched = Index(query, gallery, Clause(("identity",))).pairs(slice(0, len(query)))
    kept = ~holds(ITSELF, query, gallery, (asked, searched))
    had = np.bincount(asked[kept], minlength=len(query)) > 0
    for clause in rule.clauses:
        kept &= ~holds(clause, query, gallery, (asked, searched))
    left = np.bincount(asked[kept], minlength=len(query)) > 0
    return (asked[kept], searched[kept]), had & ~left


class Junk:
    """The junk of slices of the queries in one gallery (or a stretch of it), found without looking at every pair."""

    def __init__(self, query: Labels, gallery: Labels, rule: Rule) -> None:
        self._indexes = [Index(query, gallery, clause) for clause in (ITSELF, *rule.clauses)]

    def pairs(self, part: slice) -> Pairs:
        """Rows within `part`, and rows of the gallery; a pair may come twice."""
        found = [index.pairs(part) for index in self._indexes]
        return np.concatenate([asked for asked, _ in found]), np.concatenate([searched for _, searched in found])


class Index:
    """The pairs for which a clause holds, by the gallery sorted once."""

    def __init__(self, query: Labels, gallery: Labels, clause: Clause) -> None:
        self._query, self._gallery, self._clause = query, gallery, clause
        asked, searched = compound(query, gallery, clause.same)
        self._order = np.argsort(searched, kind="stable")  # of equal ones in gallery order
        found = searched[self._order]
        self._start = np.searchsorted(found, asked, "left")
        self._count = np.where(asked >= 0, np.searchsorted(found, asked, "right") - self._start, 0)

    def pairs(self, part: slice) -> Pairs:
        """Rows within `part`, ascending, and rows of the gallery."""
        start, count = self._start[part], self._count[part]
        asked = np.repeat(np.arange(len(count)), count)
        within = np.arange(len(asked)) - np.repeat(np.cumsum(count) - count, count)
        searched = self._order[np.repeat(start, count) + within]
        if not self._clause.other and self._clause.seconds is None:
            return asked, searched
        true = holds(self._clause, self._query.take(part), self._gallery, (asked, searched))
        return asked[true], searched[true]


def holds(clause: Clause, query: Labels, gallery: Labels, pairs: Pairs) -> np.ndarray:
    """bool [n]: whether the clause holds of each pair."""
    true = np.ones(len(pairs[0]), bool)
    for column in (*clause.same, *clause.other):
        a, b = query[column][pairs[0]], gallery[column][pairs[1]]
        true &= (a >= 0) & (b >= 0) & ((a == b) == (column in clause.same))
    if clause.seconds is not None:
        if query.time is None or gallery.time is None:
            return np.zeros(len(true), bool)
        true &= np.abs(query.time[pairs[0]] - gallery.time[pairs[1]]) <= clause.seconds  # NaN, not known: False
    return true
