"""Folders of images: camera, patterns of file names, folders of modalities; and tables with modalities of any name."""

from pathlib import Path

import pytest
from conftest import picture, small_model

from resight import FolderOptions, read_dataset, read_images
from resight.data.readers.table import read as read_table
from resight.data.sightings import Sighting, SightingTable
from resight.errors import ConfigError, DatasetError

PATTERN = r"(?P<identity>\d+)_c(?P<camera>\d)(_(?P<view>front|rear))?_t(?P<time>[\d.]+)\.jpg"


@pytest.fixture
def named(tmp_path):
    """A folder with names that a pattern matches, one in a subfolder."""
    for name in ("7_c1_front_t1.5.jpg", "7_c2_t2.jpg", "sub/8_c1_rear_t3.jpg"):
        picture(tmp_path / "named" / name)
    return tmp_path / "named"


def test_a_camera_is_that_of_every_image_of_folders_and_files(named):
    table = read_images([named, named / "7_c2_t2.jpg"], folder=FolderOptions(camera="door"))
    assert table.column("camera") == ["door"] * 4
    assert table.column("identity") == [None] * 4


def test_the_groups_of_a_pattern_are_labels(named):
    expected = [("7", "1", "front", 1.5), ("7", "2", None, 2.0), ("8", "1", "rear", 3.0)]
    table = read_images([named], folder=FolderOptions(filename_pattern=PATTERN))
    assert [(s.identity, s.camera, s.view, s.time) for s in table] == expected
    table = read_images([named / "7_c2_t2.jpg"], folder=FolderOptions(filename_pattern=PATTERN))
    assert [(s.identity, s.camera, s.view, s.time) for s in table] == expected[1:2]


def test_a_pattern_is_matched_against_the_path_within_the_folder(named):
    options = FolderOptions(filename_pattern=r"^(?P<scene>sub)?/?(?P<tracklet>\d)_c", camera="x")
    table = read_images([named], folder=options)
    assert [(s.scene, s.tracklet, s.camera) for s in table] == [(None, "7", "x"), (None, "7", "x"), ("sub", "8", "x")]


def test_a_pattern_states_modality_identity_and_part_of_a_data_set(tmp_path):
    for part, identities in (("train", "ab"), ("query", "c"), ("gallery", "c")):
        for identity in identities:
            for modality in ("rgb", "depth"):
                picture(tmp_path / part / f"{identity}-{modality}.jpg")
    pattern = r"^(?P<split>\w+)/(?P<identity>\w)-(?P<modality>\w+)"
    split = read_dataset("own", tmp_path, FolderOptions(filename_pattern=pattern))
    assert [(s.identity, *s.images) for s in split.train] == [
        ("a", "depth"),
        ("a", "rgb"),
        ("b", "depth"),
        ("b", "rgb"),
    ]
    assert [split.query.values("identity"), split.gallery.values("identity")] == [["c"], ["c"]]
    assert split.train.modalities == ("rgb", "depth")


def test_the_folder_is_the_identity_where_a_pattern_does_not_state_it(tmp_path):
    for identity in "xyz":
        picture(tmp_path / identity / "deep" / "c5.jpg")
    split = read_dataset("own", tmp_path, FolderOptions(filename_pattern=r"c(?P<camera>\d)"))
    assert sorted([*split.train.values("identity"), *split.query.values("identity")]) == ["x", "y", "z"]
    assert split.train.values("camera") == ["5"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"filename_pattern": "(?P<identity>"},
            "filename_pattern: '(?P<identity>' is no regular expression: missing )",
        ),
        ({"filename_pattern": r"(?P<id>\d)"}, "the group 'id' is not one of identity, camera, view, scene, clothes"),
        ({"filename_pattern": r"\d"}, "has no named group, such as (?P<camera>...); known: identity"),
        ({"filename_pattern": r"(?P<camera>\d)", "camera": "1"}, "camera is stated by --camera and by the pattern"),
        ({"filename_pattern": r"(?P<modality>\d)", "modalities": ("a",)}, "modality is stated by --modalities and by"),
        ({"modalities": ("a", "a")}, "--modalities names a folder twice"),
    ],
)
def test_options_that_cannot_be_are_refused(options, says):
    with pytest.raises(ConfigError) as error:
        FolderOptions().changed(**options)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        (
            r"(?P<camera>cam\d)",
            r"the pattern .* matches none of the 3 images of .*named, such as 7_c1_front_t1\.5\.jpg",
        ),
        (r"^(?P<camera>7)", r"does not match 1 of the 3 images of .*named: sub/8_c1_rear_t3\.jpg"),
        (r"_(?P<time>\w+)_", r"7_c1_front_t1\.5\.jpg: the group time is 'c1_front', which is no number of seconds"),
        (r"(?P<modality>_c)", r"'_c' is no name of a modality"),
    ],
)
def test_a_pattern_that_does_not_fit_the_files_is_refused(named, pattern, says):
    if "time" in pattern:
        (named / "7_c2_t2.jpg").unlink()
    with pytest.raises(DatasetError, match=says):
        read_images([named], folder=FolderOptions(filename_pattern=pattern))


def test_files_that_do_not_match_are_counted_and_three_are_named(tmp_path):
    for number in range(6):
        picture(tmp_path / f"{number}.jpg")
    with pytest.raises(DatasetError, match=r"5 of the 6 images of .*: 1\.jpg, 2\.jpg, 3\.jpg and 2 more$"):
        read_images([tmp_path], folder=FolderOptions(filename_pattern=r"(?P<view>0)"))


def test_options_of_a_folder_are_refused_for_tables_and_published_data_sets(named, market, tmp_path):
    (tmp_path / "t.csv").write_text("path,identity\nnamed/7_c2_t2.jpg,1\n")
    options = FolderOptions(camera="door")
    for read in (
        lambda: read_dataset("own", tmp_path / "t.csv", options),
        lambda: read_images([tmp_path / "t.csv"], folder=options),
    ):
        with pytest.raises(ConfigError, match=r"--camera is for folders of images, and .*t\.csv is a table"):
            read()
    with pytest.raises(ConfigError, match=r"--camera is for your own images \(data set own\): market1501 has a layout"):
        read_dataset("market1501", market, options)
    with pytest.raises(ConfigError, match="exclude each other"):
        read_images([named], True, FolderOptions(filename_pattern=PATTERN))


@pytest.fixture
def paired(tmp_path):
    """Four identities in two modalities, with different suffixes, and folders below."""
    for identity in "abcd":
        for shot in range(2):
            picture(tmp_path / "data" / "rgb" / identity / f"{shot}.jpg")
            picture(tmp_path / "data" / "tir" / identity / f"{shot}.png")
    return tmp_path / "data"


def test_folders_of_modalities_are_sightings(paired):
    table = read_images([paired], identity_from_folder=True)
    assert len(table) == 8
    first = Sighting({"rgb": paired / "rgb" / "a" / "0.jpg", "tir": paired / "tir" / "a" / "0.png"}, "a")
    assert table[0] == first
    split = read_dataset("own", paired, FolderOptions(filename_pattern=r"/(?P<camera>\d)\."))
    assert split.train.modalities == split.query.modalities == ("rgb", "tir")
    assert (len(split.train), len(split.query), split.train.values("camera")) == (6, 2, ["0", "1"])


def test_modalities_have_any_names(tmp_path):
    for name in ("event", "depth"):
        picture(tmp_path / name / "x.jpg")
    picture(tmp_path / "other" / "x.jpg")
    (sighting,) = read_images([tmp_path], folder=FolderOptions(modalities=("event", "depth")))
    assert sighting.images == {name: tmp_path / name / "x.jpg" for name in ("depth", "event")}
    assert len(read_images([tmp_path])) == 3  # no folder has the name of a usual modality


def test_unpaired_files_are_named_and_counted_unless_allowed(paired):
    (paired / "tir" / "a" / "0.png").unlink()
    (paired / "rgb" / "c" / "1.jpg").unlink()
    with pytest.raises(DatasetError) as error:
        read_images([paired])
    assert str(error.value) == (
        "2 of 8 sightings have no image in a modality that others have: "
        f"{paired / 'rgb'} lacks c/1.png; {paired / 'tir'} lacks a/0.jpg; add them, or allow them with "
        "--allow-missing-modalities"
    )
    table = read_images([paired], folder=FolderOptions(allow_missing_modalities=True))
    assert len(table) == 8
    assert [tuple(s.images) for s in table if len(s.images) < 2] == [("rgb",), ("tir",)]


def test_two_files_of_one_name_in_a_modality_are_refused(paired):
    picture(paired / "rgb" / "a" / "0.png")
    with pytest.raises(DatasetError, match=r"rgb has 1 name in two files, such as a/0\.jpg and 0\.png"):
        read_images([paired])


def test_folders_beside_those_of_modalities_are_refused(paired):
    picture(paired / "depth" / "a" / "0.jpg")
    with pytest.raises(
        DatasetError, match=r"folders rgb, tir of modalities and beside them .*depth/: .*--modalities rgb"
    ):
        read_images([paired])
    named = read_images([paired], folder=FolderOptions(modalities=("rgb", "tir")))
    assert named.modalities == ("rgb", "tir")


def test_an_identity_that_is_called_as_a_modality_stays_an_identity(tmp_path):
    for identity in ("rgb", "someone"):
        picture(tmp_path / identity / "x.jpg")
    split = read_dataset("own", tmp_path)
    assert {*split.train.values("identity"), *split.query.values("identity")} == {"rgb", "someone"}


def test_modalities_that_cannot_be_read_are_refused(paired):
    with pytest.raises(ConfigError, match=r"--modalities: 9 modalities \(m0, .* at most 8 are possible"):
        read_images([paired], folder=FolderOptions(modalities=tuple(f"m{n}" for n in range(9))))
    with pytest.raises(ConfigError, match=r"--modalities: 'a\+b' is no name of a modality"):
        read_images([paired], folder=FolderOptions(modalities=("a+b",)))
    with pytest.raises(DatasetError, match=r"has no folder depth of a modality; found rgb/, tir/"):
        read_images([paired], folder=FolderOptions(modalities=("rgb", "depth")))
    with pytest.raises(DatasetError, match="so the pattern cannot have a group modality"):
        read_images([paired], folder=FolderOptions(filename_pattern="(?P<modality>a|b|c|d)"))
    with pytest.raises(DatasetError, match="the sightings have 9 modalities"):
        SightingTable.of([Sighting({f"m{n}": Path("x.jpg") for n in range(9)})])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_name_modalities_in_their_columns(tmp_path, suffix):
    table = SightingTable.of(
        [
            Sighting({"rgb": tmp_path / "a.jpg", "depth": tmp_path / "d.png"}, "1"),
            Sighting({"event": tmp_path / "e"}, "2"),
        ]
    )
    assert table.modalities == ("rgb", "depth", "event")
    assert table.arrow.column_names[:5] == ["rgb", "nir", "tir", "image:depth", "image:event"]
    table.write(tmp_path / f"t{suffix}")
    assert list(SightingTable.read(tmp_path / f"t{suffix}")) == list(table)
    split = read_table(tmp_path / f"t{suffix}", test_fraction=0.5)
    assert sorted([*split.train, *split.query], key=lambda s: s.identity) == list(table)


def test_a_column_that_names_no_modality_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("image:de pth,identity\na.jpg,1\n")
    with pytest.raises(DatasetError, match=r"the column 'image:de pth'; known are: path, .*, image:NAME"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("image:depth,rgb,identity\nd.jpg,,1\n,a.jpg,2\n")
    assert [tuple(s.images) for s in read_images([tmp_path / "t.csv"])] == [("depth",), ("rgb",)]


def test_joined_data_sets_may_have_different_modalities(tmp_path):
    for name, modality in (("one", "depth"), ("two", "event")):
        for identity in "abc":
            picture(tmp_path / name / modality / identity / "0.jpg")
    first, second = (
        read_dataset("own", tmp_path / name, FolderOptions(modalities=(modality,)))
        for name, modality in (("one", "depth"), ("two", "event"))
    )
    from resight.data.readers.joined import join

    assert join([("x", first), ("y", second)]).train.modalities == ("depth", "event")


def test_extraction_and_galleries_take_folders_of_modalities(paired, tmp_path):
    import resight

    model = small_model(tmp_path / "model", cameras=("0", "1"), modalities=("rgb", "tir"))
    options = resight.ExtractOptions(filename_pattern=r"(?P<identity>\w)/(?P<camera>\d)\.", precision="fp32")
    resight.extract(model, paired, tmp_path / "e.parquet", options=options)
    from resight.inference.embeddings import read_embeddings

    stored = read_embeddings(tmp_path / "e.parquet")[0].sightings
    assert list(stored) == list(read_images([paired], folder=options.folder))
    with resight.create_gallery(tmp_path / "g", resight.load(model)) as gallery:
        gallery.ingest(read_images([paired], folder=options.folder))
        assert gallery.stats().modalities == {"rgb+tir": 8}
        assert gallery.stats().identities == 4


def test_extraction_with_a_modality_of_another_name(tmp_path):
    import resight
    from resight.evaluation.labels import encode_labels
    from resight.inference.embeddings import Embeddings, read_embeddings, write_embeddings

    for modality in ("depth", "event"):
        picture(tmp_path / "data" / modality / "x.jpg")
    model = small_model(tmp_path / "model", modalities=("depth", "event"), sie=())
    options = resight.ExtractOptions(modalities=("depth", "event"), camera="c1")
    resight.extract(model, tmp_path / "data", tmp_path / "e.parquet", options=options)
    stored, _ = read_embeddings(tmp_path / "e.parquet")
    assert [(tuple(s.images), s.camera) for s in stored.sightings] == [(("depth", "event"), "c1")]
    with resight.create_gallery(tmp_path / "g", resight.load(model)) as gallery:
        assert gallery.ingest_embeddings(tmp_path / "e.parquet").added == 1
        assert gallery.ingest(stored.sightings).already_present == 1
    other = Embeddings(stored.vectors, SightingTable.of([Sighting({"rgb": Path("y.jpg")})]), stored.info)
    write_embeddings(tmp_path / "both.parquet", stored, other)
    query, gallery = read_embeddings(tmp_path / "both.parquet")
    assert [tuple(s.images) for s in (query.sightings[0], gallery.sightings[0])] == [("depth", "event"), ("rgb",)]
    labels = encode_labels(stored.sightings, other.sightings)
    assert labels[0].names["modality"] == ["depth+event", "rgb"]
