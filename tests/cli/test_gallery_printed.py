"""What the actions of `resight gallery` print, against what the gallery returns, and which calls they make."""

import json
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from types import SimpleNamespace

import cli_helpers
import numpy as np
import pytest
from cli_helpers import tables

from resight.cli import main
from resight.cli.gallery import options
from resight.cli.gallery.metadata import parse_metadata
from resight.cli.gallery.search import print_answers
from resight.errors import ConfigError
from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
from resight.gallery.gallery import Answer, Gallery
from resight.gallery.ingest import IngestReport
from resight.gallery.open import open_gallery
from resight.gallery.record import Filter, GalleryInfo, Record

WIDTH = 8
EVERYTHING = Filter()


def record(n, **fields):
    """A record near one of three centres."""
    centre, noise = (np.random.default_rng(seed).standard_normal(WIDTH) for seed in (n % 3, 100 + n))
    x = centre + 0.2 * noise
    return Record(f"r{n}", (x / np.linalg.norm(x)).astype(np.float32), **fields)


RECORDS = [
    record(0, identity="ann", camera="c1", modality="rgb", time=1.005, images={"rgb": "a.jpg", "nir": "b.jpg"}),
    record(1, identity="bob", camera="c2", modality="rgb", time=7.0, metadata={"gate": "north", "floor": 2}),
    record(2, modality="rgb", tracklet="t1"),
    record(3, identity="ann", camera="c2", modality="nir", time=3.0),
    record(4, camera="c1", modality="rgb", metadata={"gate": "south"}),
    record(5, modality="rgb"),
    record(6, identity="ann", modality="rgb"),
    record(7, modality="rgb", tracklet="t1"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A gallery of eight records, in the folder `g` of the working folder; it has no model."""
    monkeypatch.chdir(tmp_path)
    SQLiteEngine.create(tmp_path / "g", GalleryInfo(width=WIDTH, embedding_id="0123"))
    with open_gallery("g") as gallery:
        gallery.add(RECORDS)
    return tmp_path


def lines(capsys, *command):
    return cli_helpers.lines(capsys, "gallery", *command)


def refused(capsys, *command):
    return cli_helpers.refused(capsys, "gallery", *command)


def naive(query, where=EVERYTHING, leave_out=()):
    """All records that match, the most similar first, and their similarities."""
    found = [(float(query @ r.vector), r) for r in RECORDS if where.holds(r) and r.id not in leave_out]
    return sorted(found, key=lambda pair: -pair[0])


def test_defaults():
    for kind, defaults in (
        (options.Search, {"k": 10, "prior": 0.5, "group": None, "rerank": False, "after": None}),
        (options.Cluster, {"threshold": None, "neighbors": 20, "all": False}),
        (options.Add, {"model": None, "thumbnails": False}),
    ):
        assert defaults.items() <= {field.name: field.default for field in fields(kind)}.items()


@pytest.mark.parametrize("k", [1, 3, 10])
def test_search_with_records_leaves_them_out(capsys, folder, k):
    answers = json.loads("\n".join(lines(capsys, "search", "g", "--id", "r0", "r4", "--k", k, "--json")))["queries"]
    assert [entry["query"] for entry in answers] == ["r0", "r4"]
    for entry, query in zip(answers, (RECORDS[0], RECORDS[4]), strict=True):
        # The search is for as many more as there are ids, which are then left out.
        expected = naive(query.vector, leave_out=("r0", "r4"))[:k]
        assert [row["id"] for row in entry["answers"]] == [r.id for _, r in expected]
        for row, (similarity, r) in zip(entry["answers"], expected, strict=True):
            assert row == {
                "similarity": round(similarity, 4), "probability": None, "known": None, "identity": r.identity,
                "camera": r.camera, "time": r.time, "modality": r.modality, "tracklet": r.tracklet,
                "images": dict(r.images), "metadata": dict(r.metadata), "id": r.id, "members": 1,
            }  # fmt: skip


def test_search_prints_a_table_without_empty_columns(capsys, folder):
    printed = lines(capsys, "search", "g", "--id", "r3", "--identity", "ann")
    rows = [
        [f"{similarity:.4f}", "ann", *labels]
        for (similarity, r), labels in zip(
            naive(RECORDS[3].vector, Filter(identity=("ann",)), ("r3",)),
            [["", "", "rgb", "", "r6"], ["c1", "1.00 s", "rgb", "a.jpg b.jpg", "r0"]],
            strict=True,
        )
    ]
    assert rows[0][0] == f"{float(RECORDS[3].vector @ RECORDS[6].vector):.4f}"
    columns = ["similarity", "identity", "camera", "time", "modality", "images", "id"]
    assert tables(printed) == [("r3", [columns, *rows])]


def test_search_filters(capsys, folder):
    command = ["search", "g", "--id", "r2", "--json"]
    for more, where in (
        (["--camera", "c1"], Filter(camera=("c1",))), (["--modality", "nir"], Filter(modality=("nir",))),
        (["--after", 3, "--before", 7], Filter(after=3.0, before=7.0)),
        (["--metadata", "gate=north", "floor=2"], Filter(metadata={"gate": "north", "floor": 2})),
    ):  # fmt: skip
        (entry,) = json.loads("\n".join(lines(capsys, *command, *more)))["queries"]
        assert [row["id"] for row in entry["answers"]] == [r.id for _, r in naive(RECORDS[2].vector, where, ("r2",))]
        assert entry["answers"]


def test_search_by_group_counts_its_members(capsys, folder):
    printed = lines(capsys, "search", "g", "--id", "r5", "--group", "identity", "--k", 7)
    ((title, (columns, *rows)),) = tables(printed)
    assert (title, columns[-1]) == ("r5", "members")
    members = {row[columns.index("identity")]: row[-1] for row in rows if row[columns.index("identity")]}
    assert members == {"ann": "3", "bob": "1"}
    assert "members" not in tables(lines(capsys, "search", "g", "--id", "r5"))[0][1][0]


def test_search_with_a_record_of_a_group_finds_the_rest_of_it(capsys, folder):
    printed = lines(capsys, "search", "g", "--id", "r3", "--group", "identity", "--json")
    (entry,) = json.loads("\n".join(printed))["queries"]
    assert {row["identity"] for row in entry["answers"]} == {"ann", "bob", None}


def test_search_says_why_there_is_no_answer(capsys, folder):
    command = ["search", "g", "--id", "r2"]
    assert lines(capsys, *command, "--identity", "zoe")[-1] == "r2: No record matches the filter (identity: zoe)"
    assert lines(capsys, *command, "--identity", "zoe", "--after", 0)[-1] == (
        "r2: No record matches the filter (identity: zoe, after: 0 s)"
    )
    assert lines(capsys, *command, "--modality", "tir")[-1] == (
        "r2: No record matches the filter (modality: tir; the gallery has nir, rgb)"
    )
    with open_gallery("g") as gallery:
        gallery.remove([r.id for r in RECORDS if r.id != "r2"])
    assert lines(capsys, *command)[-1] == "r2: the gallery has no other record"


def test_search_refuses(capsys, folder):
    for more in ([], ["a.jpg", "--id", "r0"]):
        assert refused(capsys, "search", "g", *more) == (
            "give query images, or --image of one sighting, or --id of records to search with"
        )
    for k in (0, -1):
        assert refused(capsys, "search", "g", "--id", "r0", "--k", k) == f"--k must be 1 or more, not {k}"
    assert refused(capsys, "search", "g", "--id", "r0", "--prior", "2").startswith("the prior")
    for pair in ("x", "=1"):
        says = refused(capsys, "search", "g", "--id", "r0", "--metadata", pair)
        assert says == f"metadata is NAME=VALUE, not {pair!r}"


def test_metadata_keeps_the_types_of_json():
    pairs = ("a=3", "b=true", "c=1.5", 'd="3"', "e=north", "f=null", "g=[1]", "h=", "i=x=y", "j=NaN x")
    assert parse_metadata(pairs) == {
        "a": 3, "b": True, "c": 1.5, "d": "3", "e": "north", "f": "null", "g": "[1]", "h": "", "i": "x=y", "j": "NaN x",
    }  # fmt: skip
    for pair in ("=", "=1", "a", ""):
        with pytest.raises(ConfigError, match="metadata is NAME=VALUE"):
            parse_metadata((pair,))


def answers(*known, probability=None):
    return [Answer(r, 0.123456, probability, k) for r, k in zip(RECORDS, known, strict=False)]


def printed_answers(capsys, rows, **settings):
    """What is printed for the queries q0, q1, ..."""
    chosen = replace(options.Search("g"), **settings)
    print_answers([f"q{n}" for n in range(len(rows))], rows, chosen, Filter(), [])
    return capsys.readouterr().out.splitlines()


def test_answers_of_a_calibrated_model(capsys):
    printed = printed_answers(capsys, [answers(False, False, probability=0.045678), answers(False, True)])
    assert tables(printed) == [
        (
            "q0",
            [
                ["similarity", "probability", "known", "identity", "camera", "time", "modality", "images", "metadata",
                "id"],
                ["0.1235", "4.6 %", "no", "ann", "c1", "1.00 s", "rgb", "a.jpg b.jpg", "", "r0"],
                ["0.1235", "4.6 %", "no", "bob", "c2", "7.00 s", "rgb", "", "gate=north floor=2", "r1"],
            ],
        ),
        (
            "q1",
            [
                ["similarity", "known", "identity", "camera", "time", "modality", "images", "metadata", "id"],
                ["0.1235", "no", "ann", "c1", "1.00 s", "rgb", "a.jpg b.jpg", "", "r0"],
                ["0.1235", "yes", "bob", "c2", "7.00 s", "rgb", "", "gate=north floor=2", "r1"],
            ],
        ),
    ]  # fmt: skip
    says = "No match above the threshold"
    assert printed.count(says) == 1
    assert says not in printed_answers(capsys, [answers(True)])
    assert says not in printed_answers(capsys, [answers(None, None)])
    assert printed_answers(capsys, [answers(False)])[-1] == says


def test_answers_as_json(capsys):
    printed = printed_answers(capsys, [answers(True, probability=0.045678), []], json=True)
    document = json.loads("\n".join(printed))["queries"]
    assert [entry["query"] for entry in document] == ["q0", "q1"]
    ((row,), nothing) = (entry["answers"] for entry in document)
    assert (row["similarity"], row["probability"], row["known"], row["time"]) == (0.1235, 0.0457, True, 1.005)
    assert nothing == []


def test_assign_and_undo(capsys, folder):
    again = "; undo with: resight gallery undo g"
    assert lines(capsys, "assign", "g", "r2", "r5", "--identity", "zoe") == [f"2 records assigned to zoe{again}"]
    assert lines(capsys, "assign", "g", "r0", "--of", "zoe") == [f"3 records made unknown{again}"]
    with open_gallery("g") as gallery:
        second, first = reversed(gallery.engine.assignments())
        second, first = sorted((second, first), key=lambda entry: entry.identity is None, reverse=True)
    assert lines(capsys, "undo", "g") == [
        f"undone: 3 records made unknown at {second.at}; each has its earlier identity"
    ]
    assert lines(capsys, "undo", "g") == [
        f"undone: 2 records assigned to zoe at {first.at}; each has its earlier identity"
    ]


def test_remove(capsys, folder):
    assert lines(capsys, "remove", "g", "--id", "r2", "r5", "none") == ["2 records removed, with all traces"]
    assert lines(capsys, "remove", "g", "--identity", "ann") == ["3 records removed, with all traces"]
    assert lines(capsys, "remove", "g", "--identity", "ann") == ["No record matches: nothing is removed"]
    for more in ([], ["--id", "r1", "--identity", "bob"]):
        assert refused(capsys, "remove", "g", *more) == "give either --id of records or --identity to remove"


@pytest.mark.parametrize("threshold", [-1, 0.6, 0.99])
def test_cluster(capsys, folder, threshold):
    command = ["cluster", "g", "--threshold", threshold, "--neighbors", 5]
    with open_gallery("g") as gallery:
        unnamed, every = (gallery.cluster(threshold, 5, named) for named in (False, True))
    counts = [
        {
            "records": len(clustering.records), "groups": len(set(clustering.groups.tolist())),
            "single": sum((clustering.groups == group).sum() == 1 for group in set(clustering.groups.tolist())),
        }
        for clustering in (unnamed, every)
    ]  # fmt: skip
    words = [
        f"{c['records']} records in {c['groups']} group{'s' * (c['groups'] != 1)}; {c['single']} of the groups "
        f"{'has' if c['single'] == 1 else 'have'} a single record"
        for c in counts
    ]
    assert [c["records"] for c in counts] == [4, 8]
    assert lines(capsys, *command) == [words[0]]
    agreement = every.agreement
    assert lines(capsys, *command, "--all") == [
        words[1],
        f"agreement with the identities: F1 of pairs {100 * agreement.f1:.1f} % (precision "
        f"{100 * agreement.precision:.1f} %, recall {100 * agreement.recall:.1f} %), NMI {100 * agreement.nmi:.1f} %; "
        f"{agreement.groups} group{'s' * (agreement.groups != 1)} for 2 identities",
    ]
    assert json.loads("\n".join(lines(capsys, *command, "--json"))) == counts[0]
    document = json.loads("\n".join(lines(capsys, *command, "--all", "--json")))
    assert document == counts[1] | {"agreement": asdict(agreement)}
    assert lines(capsys, *command, "--assign", "new") == [words[0], f"assigned: new-1 to new-{counts[0]['groups']}"]
    assert lines(capsys, *command) == ["Nothing to cluster: all 8 records have an identity (--all includes them)"]
    assert refused(capsys, *command, "--all", "--assign", "x").startswith("--all compares groups with identities")


def test_stats(capsys, folder):
    with open_gallery("g") as gallery:
        counts = asdict(gallery.stats())
    assert json.loads("\n".join(lines(capsys, "stats", "g", "--json"))) == counts
    assert lines(capsys, "stats", "g") == [
        "records             8",
        "identities          2",
        "without identity    4",
        "cameras             c1 2, c2 2, unknown 4",
        "modalities          nir 1, rgb 7",
        "first time          1.00 s",
        "last time           7.00 s",
        "metadata            floor, gate",
        "embedding_id        0123",
        "model               none",
    ]
    with open_gallery("g") as gallery:
        gallery.remove([r.id for r in RECORDS])
    assert lines(capsys, "stats", "g")[3] == "cameras             none"


def test_verify(capsys, folder, monkeypatch):
    assert lines(capsys, "verify", "g") == ["8 records, no fault"]
    assert lines(capsys, "verify", "g", "--identity", "zoe") == [
        "8 records, no fault",
        "no record and no log entry has the identity 'zoe'",
    ]
    with_ann = [f"record {r.id!r} has the identity 'ann'" for r in RECORDS if r.identity == "ann"]
    assert refused(capsys, "verify", "g", "--identity", "ann") == "3 faults: " + "; ".join(with_ann)
    monkeypatch.setattr(Gallery, "verify", lambda self, identity: [f"f{n}" for n in range(25)])
    assert refused(capsys, "verify", "g") == "25 faults: " + "; ".join(f"f{n}" for n in range(20))


def test_copies_are_counted(capsys, folder, monkeypatch):
    assert lines(capsys, "copy", "g", "other") == ["8 records copied to other"]
    assert lines(capsys, "to-parquet", "g", "g.parquet") == ["8 records written to g.parquet"]
    assert lines(capsys, "from-parquet", "g.parquet", "third") == ["8 records added to third"]
    assert lines(capsys, "repair", "g", "fourth") == ["8 records copied to fourth"]
    for name in ("other", "third", "fourth"):
        assert lines(capsys, "verify", name) == ["8 records, no fault"]
    lost = SimpleNamespace(copied=3, lost=[f"l{n}" for n in range(25)])
    monkeypatch.setattr("resight.gallery.open.repair_gallery", lambda url, to: lost)
    assert refused(capsys, "repair", "g", "fifth") == "25 items lost: " + "; ".join(f"l{n}" for n in range(20))


# Actions that load a model, which is replaced


SETTINGS = {"flip": True, "fusion": "mean", "unknown": "off", "scaling": {}}


@pytest.fixture
def calls(monkeypatch):
    """What `create`, `add` and `search` of images reach for; the calls are listed."""
    calls = []
    gallery = SimpleNamespace(
        info=SimpleNamespace(width=768, embedding_id="0123", embedding=SimpleNamespace(**SETTINGS)),
        embedder=SimpleNamespace(
            description="the model",
            modalities_of=lambda images, modality: ["rgb" if modality is None else modality] * len(images),
            embed=lambda images, *labels: calls.append(("embed", images, *labels)) or np.eye(len(images), 4),
        ),
        ingest=lambda *a: calls.append(("ingest", *a[:-1])) or a[-1](2) or IngestReport(5, 2, ["a is empty"], ["b"]),
        ingest_embeddings=lambda *a: calls.append(("ingest_embeddings", *a[:-1])) or a[-1](2) or IngestReport(3, 0, []),
        search=lambda *a, exclude: calls.append(("search", *a, exclude)) or [[] for _ in a[0]],
        stats=lambda: SimpleNamespace(modalities={"rgb": 1}),
    )

    def opened(name):
        return lambda *a, **o: calls.append((name, *a, *sorted(o.items()))) or nullcontext(gallery)

    monkeypatch.setattr("resight.gallery.open.create_gallery", opened("create"))
    monkeypatch.setattr("resight.gallery.open.open_gallery", opened("open"))
    monkeypatch.setattr("resight.gallery.url.exists", lambda url: url == "old")
    monkeypatch.setattr("resight.inference.load.load", lambda folder, *a, **o: ("model", str(folder), *a, *o.values()))
    monkeypatch.setattr(
        "resight.data.readers.anything.read_images", lambda paths, by_folder, *_: [*map(str, paths), by_folder]
    )
    return calls


def test_create(capsys, calls):
    assert lines(capsys, "create", "new", "--model", "m") == ["new: a gallery for m (embeddings of 768 numbers)"]
    ((name, url, model),) = calls
    assert (name, url, model[:2]) == ("create", "new", ("model", "m"))


@pytest.mark.parametrize(
    ("words", "opened"),
    [
        (["new", "a.jpg", "--model", "m"], [("create", "new", ("model", "m", "cpu", "fp32"))]),
        (["old", "a.jpg"], [("open", "old", ("device", "cpu"), ("precision", "fp32"))]),
        (
            ["old", "a.jpg", "--model", "m"],
            [("open", "old"), ("open", "old", ("model", "m", "cpu", "fp32", True, "mean", "off", {}))],
        ),
    ],
)
def test_add_images(capsys, calls, words, opened):
    more = ["--device", "cpu", "--precision", "fp32", "--metadata", "gate=2", "--thumbnails", "--identity-from-folder"]
    capsys.readouterr()
    assert main(["gallery", "add", *words, *more]) == 0
    captured = capsys.readouterr()
    assert captured.out == "5 added, 2 already present, 1 corrupt and skipped\n"
    assert captured.err == "the model\n2 sightings\nskipped: a is empty\nb\n"
    assert calls == [*opened, ("ingest", ["a.jpg", True], True, {"gate": 2})]


@pytest.mark.parametrize(
    ("words", "opened"),
    [
        (["old"], ("open", "old", ("device", "auto"), ("precision", "auto"))),
        (["old", "--model", "m"], ("open", "old", ("device", "auto"), ("precision", "auto"))),
        (["new", "--model", "m"], ("create", "new", ("model", "m", "auto", "auto"))),
    ],
)
def test_add_embeddings(capsys, calls, words, opened):
    assert lines(capsys, "add", *words, "--embeddings", "e.parquet") == [
        "3 added, 0 already present, 0 corrupt and skipped"
    ]
    assert [call[0] for call in calls] == [opened[0], "ingest_embeddings"]
    assert calls[0] == opened
    assert [str(calls[1][1]), calls[1][2]] == ["e.parquet", {}]


def test_add_refuses(capsys, calls):
    for words in ([], ["a.jpg", "--embeddings", "e"]):
        assert refused(capsys, "add", "old", *words) == (
            "give either images, folders or tables to add, or --embeddings FILE"
        )
    for flags in (["--thumbnails"], ["--identity-from-folder"], ["--thumbnails", "--identity-from-folder"]):
        assert refused(capsys, "add", "old", "--embeddings", "e", *flags) == (
            "--embeddings has no images: leave --thumbnails and --identity-from-folder out"
        )
    assert not calls


def test_search_with_images(capsys, calls):
    more = ["--query-camera", "c", "--query-modality", "nir", "--k", 3, "--group", "tracklet", "--rerank"]
    printed = lines(capsys, "search", "old", "a.jpg", "b.jpg", *more, "--prior", 0.25, "--json")
    assert json.loads("\n".join(printed)) == {"queries": [{"query": n, "answers": []} for n in ("a.jpg", "b.jpg")]}
    opened, searched = calls
    assert opened == ("open", "old", ("device", "auto"), ("precision", "auto"), ("prior", 0.25))
    assert [str(path) for path in searched[1]] == ["a.jpg", "b.jpg"]
    assert searched[2:] == (3, Filter(), "tracklet", True, "c", None, "nir", ())
    printed = lines(capsys, "search", "old", "a.jpg", "b.jpg", "--same-object", "--json")
    assert json.loads("\n".join(printed)) == {"queries": [{"query": "a.jpg and b.jpg", "answers": []}]}
    np.testing.assert_allclose(calls[-1][1], [[0.5**0.5, 0.5**0.5, 0, 0]])
    assert calls[-1][2:] == (10, Filter(), None, False, None, None, "rgb", ())
    printed = lines(capsys, "search", "old", "--image", "rgb=a.jpg", "tir=b.png", "--json")
    assert json.loads("\n".join(printed)) == {"queries": [{"query": "rgb=a.jpg + tir=b.png", "answers": []}]}
    assert calls[-1][1] == [{"rgb": "a.jpg", "tir": "b.png"}]
