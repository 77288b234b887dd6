"""The section of an evaluation. Imports no torch."""

from typing import Literal

from pydantic import Field

from resight.config.section import Section

JunkRule = Literal[
    "none",
    "same-camera",
    "same-scene",
    "same-camera-or-clothes",
    "same-camera-or-other-clothes",
    "same-place",
    "same-tracklet",
    "time-window",
]
Pooling = Literal["off", "mean", "max"]


class Evaluation(Section):
    """How a model is measured."""

    protocol: str | None = None
    """Name of the protocol: queries, gallery and what is left out (docs/protocols.md). None: the data set's own."""
    junk: JunkRule | None = None
    """Rule for what a query's ranking leaves out; `none`: only the query's own file. None: the protocol's rule."""
    window: float = Field(default=3600.0, ge=0)
    """Time window in seconds of the rule `time-window`."""
    trials: int | None = Field(default=None, ge=1)
    """Number of trials, where the protocol draws the gallery. None: the protocol's number."""
    multi_query: Pooling = "off"
    """Whether the queries of one identity under one camera become one query, by their mean or maximum."""
    tracklets: Pooling = "off"
    """Whether a tracklet becomes one item, by its mean or maximum, in queries and gallery."""
    rerank: bool = False
    """Whether to re-rank by k-reciprocal neighbours (Zhong et al. 2017)."""
    k1: int = Field(default=20, ge=1)
    """Number of neighbours that can be mutual, in re-ranking."""
    k2: int = Field(default=6, ge=1)
    """Number of neighbours whose sets are averaged, in re-ranking."""
    rerank_weight: float = Field(default=0.3, ge=0, le=1)
    """Weight of the original distance in the re-ranked one: the paper's lambda."""
    expand_query: int = Field(default=0, ge=0)
    """Number of neighbours that each query is averaged with (average query expansion); 0 for none."""
    expand_gallery: int = Field(default=0, ge=0)
    """Number of neighbours that each gallery item is averaged with (database-side augmentation); 0 for none."""
    expand_power: float = Field(default=3.0, ge=0)
    """Exponent of a neighbour's similarity in its weight, in an expansion; 0 weighs all neighbours equally."""
