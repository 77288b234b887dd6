"""The field's protocols as data: the queries, the gallery, what is left out, and how often the gallery is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from resight.config.evaluation import JunkRule
from resight.errors import unknown

Selection = Mapping[str, tuple[str, ...]]
"""Names of labels by column; an item is selected when its label is among the names in every column."""


@dataclass(frozen=True)
class Protocol:
    """How a data set is measured. Where a gallery is drawn, trial n uses seed n."""

    name: str
    words: str
    """What is ranked against what, for users."""
    source: str
    """The data sets and papers that use it, for users."""
    rule: JunkRule
    """What a query's ranking leaves out."""
    query: Selection = field(default_factory=dict[str, tuple[str, ...]])
    """The rows of the query table that are queries."""
    gallery: Selection = field(default_factory=dict[str, tuple[str, ...]])
    """The rows of the gallery table that can be drawn."""
    draw: tuple[str, ...] = ()
    """Columns that group the gallery's candidates: `shots` random items of each group are drawn. Without any
    column, the gallery is all candidates."""
    shots: int = 1
    """Items drawn from each group."""
    rest_is_query: bool = False
    """Rows that were drawn for the gallery are not queries; the rest are."""
    other_camera: bool = False
    """Each camera's queries are ranked against a gallery drawn from the other cameras."""
    once: bool = False
    """CMC counts each identity once, by its best item."""
    trials: int = 1
    """How often the gallery is drawn."""

    @property
    def crosses_modalities(self) -> bool:
        """Whether queries and gallery have no modality in common."""
        query_modalities = set(self.query.get("modality", ()))
        gallery_modalities = set(self.gallery.get("modality", ()))
        return bool(query_modalities) and bool(gallery_modalities) and not query_modalities & gallery_modalities


_SYSU = Protocol(
    "sysu-all",
    "infrared queries against one random colour image of each identity and camera; CMC counts an identity once",
    "SYSU-MM01, all-search, single-shot (Wu et al. 2017)",
    "same-place",
    query={"modality": ("nir",)},
    gallery={"modality": ("rgb",), "camera": ("1", "2", "4", "5")},
    draw=("identity", "camera"),
    once=True,
    trials=10,
)
_PRCC = Protocol(
    "prcc-changed",
    "queries of camera C (changed clothes) against one random image of each identity from camera A",
    "PRCC, cross-clothes, single-shot (Yang et al. 2019)",
    "none",
    query={"camera": ("C",)},
    gallery={"camera": ("A",)},
    draw=("identity",),
    trials=10,
)
_ALL = (
    Protocol(
        "market",
        "every query against the whole gallery",
        "Market-1501, DukeMTMC, CUHK03-NP, MSMT17, VeRi-776, VERI-Wild, RGBNT201, RGBNT100, MARS (Zheng et al. 2015)",
        "same-camera",
    ),
    Protocol("msvr310", "every query against the whole gallery", "MSVR310 (Zheng et al. 2022)", "same-scene"),
    Protocol(
        "clothes-changed",
        "every query against the whole gallery; only images in other clothes can match",
        "LTCC, clothes-changing (Qian et al. 2020)",
        "same-camera-or-clothes",
    ),
    Protocol(
        "clothes-same",
        "every query against the whole gallery; only images in the same clothes can match",
        "LTCC, same clothes (Gu et al. 2022)",
        "same-camera-or-other-clothes",
    ),
    Protocol(
        "vehicleid",
        "all other images against one random image of each identity",
        "VehicleID, 800, 1600 or 2400 identities (Liu et al. 2016)",
        "none",
        draw=("identity",),
        rest_is_query=True,
        trials=10,
    ),
    _SYSU,
    replace(
        _SYSU,
        name="sysu-indoor",
        source="SYSU-MM01, indoor-search, single-shot (Wu et al. 2017)",
        gallery={"modality": ("rgb",), "camera": ("1", "2")},
    ),
    Protocol(
        "regdb-visible-thermal",
        "colour queries against thermal images",
        "RegDB, visible to thermal (Nguyen et al. 2017; Ye et al. 2018)",
        "none",
        query={"modality": ("rgb",)},
        gallery={"modality": ("tir",)},
    ),
    Protocol(
        "regdb-thermal-visible",
        "thermal queries against colour images",
        "RegDB, thermal to visible (Nguyen et al. 2017; Ye et al. 2018)",
        "none",
        query={"modality": ("tir",)},
        gallery={"modality": ("rgb",)},
    ),
    Protocol(
        "single-shot",
        "each camera's queries against one random image of each identity from the other cameras",
        "CUHK03, single-gallery-shot (Li et al. 2014)",
        "same-camera",
        draw=("identity",),
        other_camera=True,
        trials=10,
    ),
    _PRCC,
    replace(
        _PRCC,
        name="prcc-same",
        words="queries of camera B (same clothes) against one random image of each identity from camera A",
        source="PRCC, same clothes, single-shot (Yang et al. 2019)",
        query={"camera": ("B",)},
    ),
    replace(
        _PRCC,
        name="prcc-changed-whole",
        words="queries of camera C (changed clothes) against all images of camera A",
        source="PRCC, cross-clothes, whole gallery",
        draw=(),
        trials=1,
    ),
    Protocol(
        "vc-clothes-changed",
        "queries and gallery of cameras 3 and 4, between which clothes change",
        "VC-Clothes, changed clothes (Wan et al. 2020)",
        "same-camera",
        query={"camera": ("3", "4")},
        gallery={"camera": ("3", "4")},
    ),
    Protocol(
        "vc-clothes-same",
        "queries and gallery of cameras 2 and 3, between which clothes stay the same",
        "VC-Clothes, same clothes (Wan et al. 2020)",
        "same-camera",
        query={"camera": ("2", "3")},
        gallery={"camera": ("2", "3")},
    ),
    Protocol("tracklets", "every query against the whole gallery", "video, camera-trap bursts", "same-tracklet"),
    Protocol("visits", "every query against the whole gallery", "camera traps: one visit is one event", "time-window"),
    Protocol("everything", "every query against the whole gallery", "no rule but the query's own file", "none"),
)
PROTOCOLS: Final[Mapping[str, Protocol]] = {protocol.name: protocol for protocol in _ALL}


def find(name: str) -> Protocol:
    """Return the protocol of that name.

    Raises:
        ConfigError: there is no such protocol; lists the known ones.
    """
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
