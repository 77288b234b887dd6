"""The gallery items that a query's ranking leaves out (junk), as data: a rule is a few clauses."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from resight.config.evaluation import JunkRule
from resight.retrieval.labels import Labels, compound

Pairs = tuple[np.ndarray, np.ndarray]
"""Rows of queries and of gallery items, int64 [n] each; the n-th of both are one pair."""


@dataclass(frozen=True)
class Clause:
    """A condition on the labels of a query and a gallery item, under which the item is junk."""

    same: tuple[str, ...]
    """Columns in which both are known and equal."""
    other: tuple[str, ...] = ()
    """Columns in which both are known and differ."""
    seconds: float | None = None
    """The greatest difference of the two times; None for any."""


@dataclass(frozen=True)
class Rule:
    """An item is junk for a query when any clause holds, or when it is the query's own file."""

    name: str
    words: str
    """What is left out of a query's ranking, for users."""
    source: str
    """The data sets or the paper that use it."""
    clauses: tuple[Clause, ...] = ()

    def within(self, seconds: float) -> "Rule":
        """Return the same rule with another time window, in seconds, where it has one."""
        clauses = (clause if clause.seconds is None else replace(clause, seconds=seconds) for clause in self.clauses)
        return replace(self, clauses=tuple(clauses))


SAME_FILE = Clause(("picture",))
_MARKET = "Market-1501 (Zheng et al. 2015)"
_RULES = (
    Rule("none", "nothing", "VehicleID, RegDB, PRCC"),
    Rule("same-camera", "images of the same identity from the same camera", _MARKET, (Clause(("identity", "camera")),)),
    Rule(
        "same-scene",
        "images of the same identity in the same scene",
        "MSVR310 (Zheng et al. 2022)",
        (Clause(("identity", "scene")),),
    ),
    Rule(
        "same-camera-or-clothes",
        "images of the same identity from the same camera or in the same clothes",
        "LTCC, clothes-changing (Qian et al. 2020)",
        (Clause(("identity", "camera")), Clause(("identity", "clothes"))),
    ),
    Rule(
        "same-camera-or-other-clothes",
        "images of the same identity from the same camera or in other clothes",
        "LTCC, same clothes (Gu et al. 2022)",
        (Clause(("identity", "camera")), Clause(("identity",), other=("clothes",))),
    ),
    Rule(
        "same-place",
        "all images from the same scene, of any identity",
        "SYSU-MM01 (Wu et al. 2017)",
        (Clause(("scene",)),),
    ),
    Rule("same-tracklet", "the images of its own sequence", "video and camera-trap bursts", (Clause(("tracklet",)),)),
    Rule(
        "time-window",
        "images of the same identity within the time window",
        "camera traps: one visit is one event",
        (Clause(("identity",), seconds=3600.0),),
    ),
)
RULES: Final[Mapping[str, Rule]] = {rule.name: rule for rule in _RULES}


def rule_of(name: JunkRule, seconds: float) -> Rule:
    """Return the rule of that name; `seconds` is the window of `time-window`."""
    return RULES[name].within(seconds)


def matching(query: Labels, gallery: Labels, rule: Rule) -> tuple[Pairs, np.ndarray]:
    """Find every query's matches: pairs of the same identity that are not junk, by query and then by gallery row.

    Returns:
        the pairs; and bool [Q], the queries that have matches other than their own file and lost all to the rule.
    """
    query_rows, gallery_rows = Index(query, gallery, Clause(("identity",))).pairs(slice(0, len(query)))
    pairs = (query_rows, gallery_rows)
    is_match = ~holds(SAME_FILE, query, gallery, pairs)
    had_match = np.bincount(query_rows[is_match], minlength=len(query)) > 0
    for clause in rule.clauses:
        is_match &= ~holds(clause, query, gallery, pairs)
    has_match = np.bincount(query_rows[is_match], minlength=len(query)) > 0
    return (query_rows[is_match], gallery_rows[is_match]), had_match & ~has_match


class Junk:
    """The junk of slices of the queries in one gallery (or a block of it), without a comparison of all pairs."""

    def __init__(self, query: Labels, gallery: Labels, rule: Rule) -> None:
        self._indexes = [Index(query, gallery, clause) for clause in (SAME_FILE, *rule.clauses)]

    def pairs(self, part: slice) -> Pairs:
        """Return the junk of the queries of `part`: rows within `part` and gallery rows; a pair may occur twice."""
        by_clause = [index.pairs(part) for index in self._indexes]
        query_rows = np.concatenate([rows for rows, _ in by_clause])
        gallery_rows = np.concatenate([rows for _, rows in by_clause])
        return query_rows, gallery_rows


class Index:
    """The pairs for which a clause holds, looked up in a gallery that is sorted once."""

    def __init__(self, query: Labels, gallery: Labels, clause: Clause) -> None:
        self._query = query
        self._gallery = gallery
        self._clause = clause
        query_codes, gallery_codes = compound(query, gallery, clause.same)
        self._order = np.argsort(gallery_codes, kind="stable")  # equal codes stay in gallery order
        sorted_codes = gallery_codes[self._order]
        self._start = np.searchsorted(sorted_codes, query_codes, "left")
        end = np.searchsorted(sorted_codes, query_codes, "right")
        self._count = np.where(query_codes >= 0, end - self._start, 0)

    def pairs(self, part: slice) -> Pairs:
        """Return the pairs of the queries of `part`: rows within `part`, ascending, and gallery rows."""
        start = self._start[part]
        count = self._count[part]
        query_rows = np.repeat(np.arange(len(count)), count)
        position = np.arange(len(query_rows)) - np.repeat(np.cumsum(count) - count, count)  # within a query's pairs
        gallery_rows = self._order[np.repeat(start, count) + position]
        if not self._clause.other and self._clause.seconds is None:
            return query_rows, gallery_rows
        true = holds(self._clause, self._query.take(part), self._gallery, (query_rows, gallery_rows))
        return query_rows[true], gallery_rows[true]


def holds(clause: Clause, query: Labels, gallery: Labels, pairs: Pairs) -> np.ndarray:
    """Return for each pair whether the clause holds: bool [n]."""
    query_rows, gallery_rows = pairs
    true = np.ones(len(query_rows), bool)
    for column in (*clause.same, *clause.other):
        query_label = query[column][query_rows]
        gallery_label = gallery[column][gallery_rows]
        known = (query_label >= 0) & (gallery_label >= 0)
        true &= known & ((query_label == gallery_label) == (column in clause.same))
    if clause.seconds is not None:
        if query.time is None or gallery.time is None:
            return np.zeros(len(true), bool)
        # NaN, an unknown time, compares as False.
        true &= np.abs(query.time[query_rows] - gallery.time[gallery_rows]) <= clause.seconds
    return true
