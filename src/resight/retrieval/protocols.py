"""The field's protocols as data: who asks, what is searched, what is left out, and how often the gallery is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from resight.config.sections import JunkRule
from resight.errors import unknown

Wanted = Mapping[str, tuple[str, ...]]
"""Labels by column; an item is wanted when each column holds one of its labels."""


@dataclass(frozen=True)
class Protocol:
    """How a data set is measured. Where it draws a gallery, trial n draws with seed n."""

    name: str
    words: str
    source: str
    rule: JunkRule
    query: Wanted = field(default_factory=dict[str, tuple[str, ...]])
    """Which of the queries ask."""
    gallery: Wanted = field(default_factory=dict[str, tuple[str, ...]])
    """Which of the gallery can be drawn."""
    draw: tuple[str, ...] = ()
    """The gallery is a random item of each that agree in these columns; without any, it is everything."""
    shots: int = 1
    """Items drawn of each."""
    rest_asks: bool = False
    """What was drawn does not ask."""
    other_camera: bool = False
    """Each camera's queries search a gallery drawn from the other cameras."""
    once: bool = False
    """CMC counts each identity once."""
    trials: int = 1

    @property
    def crosses_modalities(self) -> bool:
        """Whether queries and gallery have no modality in common."""
        query, gallery = (set(side.get("modality", ())) for side in (self.query, self.gallery))
        return bool(query) and bool(gallery) and not query & gallery


_SYSU = Protocol(
    "sysu-all",
    "infrared asks, one random colour picture of each identity and camera is searched; CMC counts an identity once",
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
    "camera C (changed clothes) asks, one random picture of each identity from camera A is searched",
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
        "every query against the whole gallery; only pictures in other clothes can match",
        "LTCC, clothes-changing (Qian et al. 2020)",
        "same-camera-or-clothes",
    ),
    Protocol(
        "clothes-same",
        "every query against the whole gallery; only pictures in the same clothes can match",
        "LTCC, same clothes (Gu et al. 2022)",
        "same-camera-or-other-clothes",
    ),
    Protocol(
        "vehicleid",
        "one random picture of each identity is searched, all others ask",
        "VehicleID, 800, 1600 or 2400 identities (Liu et al. 2016)",
        "none",
        draw=("identity",),
        rest_asks=True,
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
        "colour asks, thermal is searched",
        "RegDB, visible to thermal (Nguyen et al. 2017; Ye et al. 2018)",
        "none",
        query={"modality": ("rgb",)},
        gallery={"modality": ("tir",)},
    ),
    Protocol(
        "regdb-thermal-visible",
        "thermal asks, colour is searched",
        "RegDB, thermal to visible (Nguyen et al. 2017; Ye et al. 2018)",
        "none",
        query={"modality": ("tir",)},
        gallery={"modality": ("rgb",)},
    ),
    Protocol(
        "single-shot",
        "each camera's queries against one random picture of each identity from the other cameras",
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
        words="camera B (same clothes) asks, one random picture of each identity from camera A is searched",
        source="PRCC, same clothes, single-shot (Yang et al. 2019)",
        query={"camera": ("B",)},
    ),
    replace(
        _PRCC,
        name="prcc-changed-whole",
        words="camera C (changed clothes) asks, all of camera A is searched",
        source="PRCC, cross-clothes, whole gallery",
        draw=(),
        trials=1,
    ),
    Protocol(
        "vc-clothes-changed",
        "cameras 3 and 4 ask and are searched, between which clothes change",
        "VC-Clothes, changed clothes (Wan et al. 2020)",
        "same-camera",
        query={"camera": ("3", "4")},
        gallery={"camera": ("3", "4")},
    ),
    Protocol(
        "vc-clothes-same",
        "cameras 2 and 3 ask and are searched, between which clothes stay the same",
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
    """The protocol of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
