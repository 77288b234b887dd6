"""Whether one run is better than another, against naive means over the common queries."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from resight import compare
from resight.cli import main
from resight.errors import EvaluationError


def document(seed, names, better=0.0, **changes):
    rng = np.random.default_rng(seed)
    rows = [
        {
            "query": name,
            "identity": f"id{n // 4}",
            "AP": float(min(1, rng.random() / 2 + better)),
            "R1": float(n % 3 > 0),
        }
        for n, name in enumerate(names)
    ]
    return {"dataset": "set", "protocol": "market", "junk": "same-camera", "per_query": rows, **changes}


@pytest.fixture
def write(tmp_path):
    def to_file(name, content):
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name

    return to_file


NAMES = [f"{n:03d}.jpg" for n in range(80)]


def test_means_and_difference_are_those_of_the_common_queries(write):
    first, second = document(0, NAMES), document(1, [*NAMES[10:], "other.jpg"], better=0.3)
    comparison = compare(write("a.json", first), write("b.json", second))
    common = NAMES[10:]
    assert (comparison.queries, comparison.left_out, comparison.unlike) == (70, 11, [])
    for row, key in zip(comparison.rows, ("AP", "R1"), strict=True):
        a, b = ({r["query"]: r[key] for r in run["per_query"]} for run in (first, second))
        assert row.first == pytest.approx(np.mean([a[name] for name in common]))
        assert row.second == pytest.approx(np.mean([b[name] for name in common]))
        assert row.difference == pytest.approx(row.second - row.first)
        assert row.low <= row.difference <= row.high
    mean_ap = comparison.rows[0]
    assert mean_ap.figure == "mAP"
    assert mean_ap.low > 0
    assert mean_ap.p < 0.01


def test_settings_that_differ_are_named_where_both_files_state_them(write):
    plain, reranked = ({"settings": {"k1": 20, "rerank": rerank}} for rerank in (False, True))
    files = [write(f"{n}.json", document(n, NAMES, **changes)) for n, changes in enumerate((plain, reranked, {}))]
    assert compare(*files[:2]).unlike == ["rerank: False in the first, True in the second"]
    assert compare(*files[1:]).unlike == []


def test_a_run_is_no_better_than_itself(write):
    file = write("a.json", document(0, NAMES))
    for row in compare(file, file).rows:
        assert (row.difference, row.low, row.high, row.p) == (0, 0, 0, 1)


def test_the_seed_of_the_bootstrap_decides_the_interval(write):
    files = write("a.json", document(0, NAMES)), write("b.json", document(1, NAMES))
    assert compare(*files, seed=3) == compare(*files, seed=3)
    assert compare(*files, seed=3) != compare(*files, seed=4)


def test_queries_without_a_match_in_one_run_do_not_count(write):
    first, second = document(0, NAMES), document(0, NAMES, better=0.2)
    for row in second["per_query"][:40]:
        row["AP"] = None
    difference = compare(write("a.json", first), write("b.json", second)).rows[0].difference
    pairs = zip(first["per_query"][40:], second["per_query"][40:], strict=True)
    assert difference == pytest.approx(np.mean([b["AP"] - a["AP"] for a, b in pairs]))
    for row in second["per_query"]:
        row["AP"] = None
    with pytest.raises(EvaluationError, match="no query has a match in both runs"):
        compare(write("a.json", first), write("c.json", second))


def test_queries_with_one_file_name_are_all_compared(write):
    """As in SYSU-MM01, where each identity and camera has a `0001.jpg`."""
    first, second = document(0, ["0001.jpg"] * 80), document(1, ["0001.jpg"] * 80, better=0.2)
    comparison = compare(write("a.json", first), write("b.json", second))
    assert (comparison.queries, comparison.left_out) == (80, 0)
    differences = [b["AP"] - a["AP"] for a, b in zip(first["per_query"], second["per_query"], strict=True)]
    assert comparison.rows[0].difference == pytest.approx(np.mean(differences))


def test_a_run_folder_is_compared_by_its_result(write, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(json.dumps(document(0, NAMES)))
    assert compare(tmp_path / "run", write("a.json", document(0, NAMES))).queries == 80
    with pytest.raises(EvaluationError, match=r"result\.json cannot be read"):
        compare(tmp_path, tmp_path / "run")


def test_the_command_prints_what_the_function_returns(write, capsys):
    first = document(0, NAMES)
    files = write("a.json", first), write("b.json", document(1, NAMES[4:], better=0.3, protocol="other"))
    command = ["compare", *map(str, files), "--seed", "5"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == asdict(compare(*files, seed=5))
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "protocol: market in the first, other in the second" in out
    assert "76 queries in both evaluations; 4 queries are in one of them only" in out
    assert f"{100 * compare(*files, seed=5).rows[0].difference:+.1f}" in out


def test_bad_files_are_refused_in_one_sentence(write, tmp_path, capsys):
    file = write("a.json", document(0, NAMES))
    for bad, says in (
        (write("b.json", {"mAP": 0.5}), "holds no figures of each query"),
        (write("c.json", [1, 2]), "holds no figures of each query"),
        (tmp_path / "none.json", "cannot be read"),
        (write("d.json", document(0, ["x.jpg"])), "have no query in common"),
    ):
        assert main(["compare", str(file), str(bad)]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    (tmp_path / "noise.json").write_text("no JSON")
    with pytest.raises(EvaluationError, match="holds no figures of each query"):
        compare(file, tmp_path / "noise.json")
