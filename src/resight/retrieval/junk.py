"""Which gallery items a query's ranking leaves out."""

from dataclasses import dataclass

import numpy as np

from resight.config import JunkRule

Labels = np.ndarray
"""int64 [n]; -1 where not known, which equals nothing, not even another -1."""


@dataclass(frozen=True)
class Keys:
    """What the rules look at, of n queries or gallery items."""

    identity: Labels
    camera: Labels
    picture: Labels
    """The same number for the same file: a query never finds itself."""

    def __len__(self) -> int:
        return len(self.identity)

    def rows(self, part: slice) -> "Keys":
        """Some of the rows."""
        return Keys(self.identity[part], self.camera[part], self.picture[part])


def matches(query: Keys, gallery: Keys) -> np.ndarray:
    """bool [Q, G]: the same identity."""
    return _same(query.identity, gallery.identity)


def junk(query: Keys, gallery: Keys, rule: JunkRule) -> np.ndarray:
    """bool [Q, G]: left out of the ranking.

    `same-camera` is Market-1501's rule (Zheng et al. 2015): the query's identity seen by the query's camera. The
    query's own file is left out under every rule.
    """
    itself = _same(query.picture, gallery.picture)
    if rule == "none":
        return itself
    return itself | (_same(query.identity, gallery.identity) & _same(query.camera, gallery.camera))


def _same(query: Labels, gallery: Labels) -> np.ndarray:
    return (query[:, None] == gallery) & (query[:, None] >= 0)
