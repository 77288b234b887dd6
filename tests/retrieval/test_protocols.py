"""Each rule and protocol on a small case worked by hand. A gallery lies on a line: the lower the row, the nearer."""

import numpy as np
import pytest

from resight.errors import ConfigError, EvaluationError
from resight.retrieval.junk import RULES, Junk, matching
from resight.retrieval.labels import Labels
from resight.retrieval.protocols import PROTOCOLS, find
from resight.retrieval.scores import Matrix
from resight.retrieval.trials import draws, measure_trials

NAMES = {"modality": ["nir", "rgb", "tir"], "camera": [str(n) for n in range(7)]}


def labels_of(time=None, names=None, **labels):
    """Labels of a column as letters or numbers; '-' is not known."""
    numbers = {
        column: np.array([-1 if x == "-" else int(x) if str(x).isdigit() else ord(x) for x in values])
        for column, values in labels.items()
    }
    size = len(next(iter(numbers.values())))
    return Labels(size, numbers, names or {}, None if time is None else np.array(time, float))


def left_in_ranking(rule, query, gallery):
    """The gallery rows that stay in the one query's ranking, and its matches."""
    junk = set(Junk(query, gallery, RULES[rule]).pairs(slice(0, 1))[1].tolist())
    matches, _ = matching(query, gallery, RULES[rule])
    return [row for row in range(len(gallery)) if row not in junk], matches[1].tolist()


GALLERY = labels_of(
    identity="aaaaab--",
    camera="12223122",
    scene="11122111",
    clothes="xxyy-xxx",
    tracklet="pqqrs-pp",
    picture=range(8),
    time=[0, 10, 5000, 5000, np.nan, 0, 0, 0],
)
QUERY = labels_of(identity="a", camera="1", scene="1", clothes="x", tracklet="q", picture=[3], time=[0])


@pytest.mark.parametrize(
    ("rule", "left", "matches"),
    [
        ("none", [0, 1, 2, 4, 5, 6, 7], [0, 1, 2, 4]),  # row 3 is the query's own file, under every rule
        ("same-camera", [1, 2, 4, 5, 6, 7], [1, 2, 4]),
        ("same-scene", [4, 5, 6, 7], [4]),
        ("same-camera-or-clothes", [2, 4, 5, 6, 7], [2, 4]),  # row 4's clothes are not known: no other ones, no same
        ("same-camera-or-other-clothes", [1, 4, 5, 6, 7], [1, 4]),
        ("same-place", [4], [4]),  # whoever it shows
        ("same-tracklet", [0, 4, 5, 6, 7], [0, 4]),
        ("time-window", [2, 4, 5, 6, 7], [2, 4]),  # row 4's time is not known
    ],
)
def test_rule_by_hand(rule, left, matches):
    assert left_in_ranking(rule, QUERY, GALLERY) == (left, matches)


def test_every_rule_has_its_case():
    cases = next(m for m in test_rule_by_hand.pytestmark if m.name == "parametrize").args[1]
    assert {case[0] for case in cases} == set(RULES)


def test_a_window_of_another_length():
    rule = RULES["time-window"].within(6000)
    assert matching(QUERY, GALLERY, rule)[0][1].tolist() == [4]


def line(scores):
    return lambda asked, searched: Matrix(np.asarray(scores, np.float32)[np.ix_(asked, searched)])


def falling(queries, size):
    return line(np.tile(-np.arange(size), (queries, 1)))


def measured(name, query, gallery, score):
    protocol = PROTOCOLS[name]
    return measure_trials(protocol, RULES[protocol.rule], query, gallery, score)


@pytest.mark.parametrize(
    ("name", "ap", "first"),
    [
        ("market", (1 / 1 + 2 / 2 + 3 / 3) / 3, 1),  # 1 2 4 of 1 2 4 5 6 7
        ("msvr310", 1, 1),  # 4 of 4 5 6 7
        ("clothes-changed", 1, 1),  # 2 4 of 2 4 5 6 7
        ("clothes-same", 1, 1),
        ("tracklets", 1, 1),
        ("visits", 1, 1),
        ("everything", 1, 1),
    ],
)
def test_whole_gallery_protocols(name, ap, first):
    (trial,) = measured(name, QUERY, GALLERY, falling(1, 8))
    assert (trial.metrics.ap[0], trial.metrics.first[0]) == (ap, first)


@pytest.mark.parametrize(
    ("name", "ap", "first"),
    [
        # From the far end: row 7 is nearest. Ranks of the matches by hand, junk taken out first.
        ("market", (1 / 4 + 2 / 5 + 3 / 6) / 3, 4),  # 7 6 5 [4] [2] [1]
        ("msvr310", 1 / 4, 4),  # 7 6 5 [4]
        ("clothes-changed", (1 / 4 + 2 / 5) / 2, 4),  # 7 6 5 [4] [2]
        ("clothes-same", (1 / 4 + 2 / 5) / 2, 4),  # 7 6 5 [4] [1]
        ("tracklets", (1 / 4 + 2 / 5) / 2, 4),  # 7 6 5 [4] [0]
        ("visits", (1 / 4 + 2 / 5) / 2, 4),  # 7 6 5 [4] [2]
        ("everything", (1 / 4 + 2 / 5 + 3 / 6 + 4 / 7) / 4, 4),  # 7 6 5 [4] [2] [1] [0]
    ],
)
def test_whole_gallery_protocols_from_the_far_end(name, ap, first):
    (trial,) = measured(name, QUERY, GALLERY, line(np.arange(8)[None]))
    np.testing.assert_allclose(trial.metrics.ap[0], ap)
    assert trial.metrics.first[0] == first


def test_vehicleid_ranks_one_of_each_and_queries_with_the_rest():
    table = labels_of(identity="aaabbc", picture=range(6))
    drawn = set()
    for number in range(10):
        ((asked, searched),) = draws(PROTOCOLS["vehicleid"], table, table, number)
        assert [table.identity[row] for row in searched] == [ord("a"), ord("b"), ord("c")]
        assert sorted([*asked, *searched]) == list(range(6))
        drawn.add(tuple(searched))
    assert len(drawn) > 1
    trials = measured("vehicleid", table, table, line(np.eye(6)[[0, 0, 0, 3, 3, 5]]))
    assert len(trials) == 10
    for trial in trials:  # scores are 1 with rows 0, 3, 5 and 0 elsewhere; ties go to the earlier row
        first = dict(zip(trial.query_rows.tolist(), trial.metrics.first.tolist(), strict=True))
        b, d = trial.gallery_rows[0], trial.gallery_rows[1]
        for row in (0, 1, 2):
            assert row not in first or first[row] == 1  # a's picture comes first in every tie
        for row in (3, 4):
            assert row not in first or first[row] == (1 if d == 3 else 2)
        assert b in (0, 1, 2)


SYSU_QUERY = labels_of(identity="aa", camera="36", scene="26", modality=[0, 0], picture=[90, 91], names=NAMES)


def sysu_gallery(identity, camera, modality="1"):
    scene = [("2" if c == "3" else c) for c in camera]  # cameras 2 and 3 look at one place
    return labels_of(
        identity=identity, camera=camera, scene=scene, modality=list(modality * len(identity)),
        picture=range(len(identity)), names=NAMES,
    )  # fmt: skip


def test_sysu_all_search_by_hand():
    gallery = sysu_gallery("bbcaad", "124245")
    trials = measured("sysu-all", SYSU_QUERY, gallery, falling(2, 6))
    assert len(trials) == 10
    for trial in trials:
        # the query of camera 3 loses all of camera 2 (rows 1 and 3): b1 c4 a4 d5 -> a is the third picture
        # the query of camera 6: b1 b2 c4 a2 a4 d5 -> a is the fourth picture but the third identity
        assert trial.metrics.first.tolist() == [3, 3]
        np.testing.assert_allclose(trial.metrics.ap, [1 / 3, (1 / 4 + 2 / 5) / 2])


def test_sysu_draws_one_of_each_identity_and_camera():
    gallery = sysu_gallery("aaaabb", "112441")
    found = {tuple(draws(PROTOCOLS["sysu-all"], SYSU_QUERY, gallery, n)[0][1].tolist()) for n in range(10)}
    assert found == {(0, 2, 3, 4, 5), (1, 2, 3, 4, 5)}
    indoor = draws(PROTOCOLS["sysu-indoor"], SYSU_QUERY, gallery, 0)[0][1]
    assert indoor.tolist() in ([0, 2, 5], [1, 2, 5])


@pytest.mark.parametrize(("name", "asks", "searched"), [("visible-thermal", 1, 2), ("thermal-visible", 2, 1)])
def test_regdb_asks_one_modality_of_the_other(name, asks, searched):
    table = labels_of(identity="aabb", modality=[1, 2, 1, 2], picture=range(4), names=NAMES)
    ((asked, found),) = draws(PROTOCOLS[f"regdb-{name}"], table, table, 0)
    assert set(table["modality"][asked]) == {asks}
    assert set(table["modality"][found]) == {searched}
    (trial,) = measured(f"regdb-{name}", table, table, falling(4, 4))
    assert trial.metrics.first.tolist() == [1, 2]  # a's other picture is before b's


def test_single_shot_draws_for_each_camera_from_the_others():
    table = labels_of(identity="aabbaabb", camera="11112222", picture=range(8))
    one, two = draws(PROTOCOLS["single-shot"], table, table, 0)
    assert one[0].tolist() == [0, 1, 2, 3]
    assert set(table["camera"][one[1]]) == {2}
    assert sorted(table.identity[one[1]]) == [ord("a"), ord("b")]
    assert two[0].tolist() == [4, 5, 6, 7]
    assert set(table["camera"][two[1]]) == {1}
    for trial in measured("single-shot", table, table, falling(8, 8)):
        assert trial.metrics.first.tolist() == [1, 1, 2, 2, 1, 1, 2, 2]


PRCC_NAMES = {"camera": ["A", "B", "C"]}


@pytest.mark.parametrize(("name", "asks"), [("prcc-changed", 2), ("prcc-same", 1)])
def test_prcc_asks_one_camera_of_one_picture_of_each(name, asks):
    table = labels_of(identity="aabbaabb", camera="00001212", picture=range(8), names=PRCC_NAMES)
    trials = measured(name, table, table, falling(8, 8))
    assert len(trials) == 10
    for trial in trials:
        assert set(table["camera"][trial.query_rows]) == {asks}
        assert table.identity[trial.gallery_rows].tolist() == [ord("a"), ord("b")]
        assert trial.metrics.first.tolist() == [1, 2]


def test_prcc_whole_gallery():
    table = labels_of(identity="bbaa" + "ab", camera="000022", picture=range(6), names=PRCC_NAMES)
    (trial,) = measured("prcc-changed-whole", table, table, falling(6, 6))
    assert trial.metrics.first.tolist() == [3, 1]
    np.testing.assert_allclose(trial.metrics.ap, [(1 / 3 + 2 / 4) / 2, 1])


@pytest.mark.parametrize(("name", "cameras"), [("vc-clothes-changed", "34"), ("vc-clothes-same", "23")])
def test_vc_clothes_keeps_two_cameras(name, cameras):
    table = labels_of(identity="aaaa", camera="1234", picture=range(4), names=NAMES)
    ((asked, searched),) = draws(PROTOCOLS[name], table, table, 0)
    assert [str(c) for c in table["camera"][asked]] == list(cameras)
    assert searched.tolist() == asked.tolist()
    (trial,) = measured(name, table, table, falling(4, 4))
    assert trial.metrics.first.tolist() == [1, 1]  # the other of the two


@pytest.mark.parametrize(
    ("name", "dataset", "cameras", "queries", "gallery"),
    [
        ("sysu-all", "sysu-mm01", "123456", [2, 5], [0, 1, 3, 4]),
        ("sysu-indoor", "sysu-mm01", "123456", [2, 5], [0, 1]),
        ("prcc-changed", "prcc", "ABC", [2], [0]),
        ("prcc-same", "prcc", "ABC", [1], [0]),
        ("prcc-changed-whole", "prcc", "ABC", [2], [0]),
        ("vc-clothes-changed", "vc-clothes", "1234", [2, 3], [2, 3]),
        ("vc-clothes-same", "vc-clothes", "1234", [1, 2], [1, 2]),
    ],
)
def test_protocols_select_cameras_that_are_qualified_by_their_set(name, dataset, cameras, queries, gallery):
    """`read_dataset` names camera 1 of SYSU-MM01 `sysu-mm01:1`; the protocols name it `1`."""
    names = {"modality": ["nir", "rgb"], "camera": [f"{dataset}:{camera}" for camera in cameras]}
    modality = [0 if camera in "36" else 1 for camera in cameras]
    table = labels_of(
        identity="a" * len(cameras), camera=range(len(cameras)), modality=modality, picture=range(len(cameras)),
        names=names,
    )  # fmt: skip
    ((query_rows, gallery_rows),) = draws(PROTOCOLS[name], table, table, 0)
    assert (query_rows.tolist(), gallery_rows.tolist()) == (queries, gallery)


def test_a_label_is_selected_by_its_name_or_by_the_part_after_the_set():
    names = {"camera": ["1", "11", "market1501:1", "market1501:11", "1:x"]}
    table = labels_of(camera=[0, 1, 2, 3, 4, "-"], names=names)
    assert table.where({"camera": ("1",)}).tolist() == [True, False, True, False, False, False]
    assert table.where({"camera": ("market1501:1",)}).tolist() == [False, False, True, False, False, False]
    assert table.where({"camera": ("2",)}).sum() == 0
    assert table.where({"view": ("1",)}).sum() == 0
    assert table.where({}).all()


def test_trials_are_the_same_again():
    table = labels_of(identity="aaabbbccc", picture=range(9))
    again = [draws(PROTOCOLS["vehicleid"], table, table, n)[0][1].tolist() for n in (4, 4, 5)]
    assert again[0] == again[1] != again[2]


def test_a_protocol_without_queries_is_refused():
    table = labels_of(identity="ab", modality=[1, 1], camera="12", picture=range(2), names=NAMES)
    with pytest.raises(EvaluationError, match=r"sysu-all.*finds no query sighting: it selects modality nir"):
        draws(PROTOCOLS["sysu-all"], table, table, 0)


def test_a_protocol_that_is_not_known_lists_those_that_are():
    with pytest.raises(ConfigError, match="sysu-indoor"):
        find("sysu")
