"""Readers over folders made here, and the tables."""

import re

import pytest
from conftest import SHARED, picture
from PIL import Image

from resight.data.catalog import CATALOG, PROTOCOLS, read_dataset
from resight.data.inspect import inspect_dataset, write_tables
from resight.data.readers.table import read as read_table
from resight.data.sightings import Sighting, SightingTable, Split, hold_out
from resight.data.synthetic import synthetic
from resight.errors import ConfigError, DatasetError


def test_market_layout(market):
    split = read_dataset("market1501", market)
    assert (len(split.train), len(split.query), len(split.gallery)) == (24, 8, 10)
    assert split.train.values("identity") == [f"{i:04d}" for i in range(1, 7)]
    assert "0000" in split.gallery.values("identity")  # distractors stay, junk (-1) does not
    assert split.query.values("camera") == ["market1501:1", "market1501:2"]


def test_market_family_differs_in_names(tmp_path):
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        picture(tmp_path / "cuhk" / folder / "0003_c1_21.png")
        picture(tmp_path / "duke" / "DukeMTMC-reID" / folder / "0001_c2_f0046182.jpg")
    assert read_dataset("cuhk03", tmp_path / "cuhk").train[0].camera == "cuhk03:1"
    duke = read_dataset("dukemtmc", tmp_path / "duke")  # the folder around it will do
    assert (duke.train[0].identity, duke.train[0].camera) == ("0001", "dukemtmc:2")
    assert "withdrawn" in duke.notes[0]


def test_wrong_layout_says_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "query").mkdir()
    (tmp_path / "train").mkdir()
    with pytest.raises(DatasetError, match=r"looked for the folders bounding_box_train.*found query/, train/"):
        read_dataset("market1501", tmp_path)
    with pytest.raises(DatasetError, match=r"there is no folder .*nowhere"):
        read_dataset("market1501", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no data set named 'market'; known are: market1501"):
        read_dataset("market", tmp_path)


def test_a_name_out_of_place_is_refused(market):
    picture(market / "query" / "holiday.jpg")
    with pytest.raises(DatasetError, match=r"holiday\.jpg is not named as in Market-1501"):
        read_dataset("market1501", market)


def test_a_folder_per_identity_is_split_by_a_seed(tmp_path):
    for identity in "abcdefghij":
        for shot in range(3):
            picture(tmp_path / identity / f"{shot}.jpg")
    split = read_dataset("own", tmp_path)
    assert (len(split.train.values("identity")), len(split.query.values("identity"))) == (7, 3)
    assert not set(split.train.values("identity")) & set(split.query.values("identity"))
    assert read_dataset("own", tmp_path).query.values("identity") == split.query.values("identity")


def test_a_table_with_every_column(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / f"{name}.jpg")
    header = "path,modality,identity,camera,view,time,scene,clothes,split\n"
    rows = "a.jpg,rgb,x,1,front,3.5,s1,red,train\nb.jpg,tir,y,,,,,,query\nc.jpg,nir,y,2,,,,,gallery\n"
    (tmp_path / "mine.csv").write_text(header + rows)
    split = read_dataset("own", tmp_path / "mine.csv")
    expected = Sighting({"rgb": tmp_path / "a.jpg"}, "x", "1", "front", 3.5, "s1", "red")
    assert split.train[0] == expected
    assert split.query[0] == Sighting({"tir": tmp_path / "b.jpg"}, "y")
    assert split.gallery[0].images == {"nir": tmp_path / "c.jpg"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("path,idendity\na.jpg,1\n", "column 'idendity'; known are: path"),
        ("identity\n1\n", "no column of pictures"),
        ("path,modality\na.jpg,rgb+tir\n", r"row 2: 'rgb\+tir' is no name of a modality"),
        ("path,identity,split\na.jpg,1,training\n", "split 'training' is not one of train"),
        ("path,identity\na.jpg,1\n", "names 1 identities; at least 2"),
        ("path,identity\n", "has no row"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, content, says):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DatasetError, match=re.escape(says) if "[" in says else says):
        read_dataset("own", tmp_path / "t.csv")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_tables_survive_the_disk(tmp_path, suffix):
    table = SightingTable.of(
        [
            Sighting({"rgb": tmp_path / "a.jpg", "tir": tmp_path / "b.jpg"}, "007", "1", time=2.25, tracklet="t"),
            Sighting({"nir": tmp_path / "c.jpg"}),
        ]
    )
    table.write(tmp_path / f"t{suffix}")
    assert list(SightingTable.read(tmp_path / f"t{suffix}")) == list(table)


def test_sightings_without_a_modality_that_has_a_name_are_refused(tmp_path):
    with pytest.raises(
        DatasetError, match="sighting 0 has a picture of a modality, and 'u v' is no name of a modality"
    ):
        SightingTable.of([Sighting({"u v": tmp_path / "a.jpg"})])
    with pytest.raises(DatasetError, match="no picture"):
        SightingTable.of([Sighting({})])


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_msmt17(tmp_path, version):
    folders = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}[version]
    for folder in folders:
        (tmp_path / folder).mkdir()
    with pytest.raises(DatasetError, match=r"lacks its list .*list_train\.txt"):
        read_dataset("msmt17", tmp_path)
    for part, camera in (("train", "01"), ("val", "02"), ("query", "03"), ("gallery", "15")):
        line = f"0000/0000_000_{camera}_0303morning_0008_0.jpg 0\n"
        (tmp_path / f"list_{part}.txt").write_text(line)
    split = read_dataset("msmt17", tmp_path)
    assert [s.camera for s in split.train] == [
        "msmt17:1",
        "msmt17:2",
    ]  # val is part of the training, and a note says so
    assert (split.query[0].identity, split.gallery[0].camera) == ("test-0000", "msmt17:15")
    assert split.train[0].identity == "train-0000"  # test numbers start at 0 again: not the same one
    assert split.gallery[0].images["rgb"].parent.parent == tmp_path / folders[1]
    assert version in split.notes[0]
    assert len(read_dataset("msmt17-train-only", tmp_path).train) == 1


def test_veri_keeps_pictures_without_a_view(tmp_path):
    for folder in ("image_train", "image_query", "image_test"):
        picture(tmp_path / folder / "0030_c008_00049745_0.jpg")
        picture(tmp_path / folder / "0031_c009_00049745_0.jpg")
    (tmp_path / "keypoint_train.txt").write_text("/VeRi\\image_train/0030_c008_00049745_0.jpg 1 -1 5\n")
    split = read_dataset("veri776", tmp_path)
    assert [(s.identity, s.camera, s.view) for s in split.train] == [
        ("0030", "veri776:008", "veri776:5"),
        ("0031", "veri776:009", None),
    ]


def test_vehicleid_leaves_the_draw_to_its_protocol(tmp_path):
    (tmp_path / "image").mkdir()
    (tmp_path / "train_test_split").mkdir()
    (tmp_path / "train_test_split" / "train_list.txt").write_text("1 9\n2 9\n")
    rows = "".join(f"{10 * v + i} {v}\n" for v in range(5) for i in range(4))
    (tmp_path / "train_test_split" / "test_list_800.txt").write_text(rows)
    split = read_dataset("vehicleid", tmp_path)
    assert split.gallery is split.query
    assert (len(split.query), split.protocol) == (20, "vehicleid")
    with pytest.raises(DatasetError, match="test_list_2400"):
        read_dataset("vehicleid-2400", tmp_path)


def test_sysu_keeps_places_and_modalities_apart(tmp_path):
    for camera in range(1, 7):
        for identity in ("0001", "0002", "0003"):
            if (camera, identity) != (5, "0003"):  # not everybody was seen by every camera
                picture(tmp_path / f"cam{camera}" / identity / "0001.jpg")
    (tmp_path / "exp").mkdir()
    with pytest.raises(DatasetError, match=r"lacks its list .*train_id\.txt"):
        read_dataset("sysu-mm01", tmp_path)
    for part, identities in (("train", "1"), ("val", "2"), ("test", "3")):
        (tmp_path / "exp" / f"{part}_id.txt").write_text(f"{identities}\n")
    split = read_dataset("sysu-mm01", tmp_path)
    assert split.train.values("identity") == ["0001", "0002"]
    seen = {s.camera: (s.scene, *s.images) for s in split.query}
    assert seen == {
        "sysu-mm01:1": ("1", "rgb"),
        "sysu-mm01:2": ("2 and 3", "rgb"),
        "sysu-mm01:3": ("2 and 3", "nir"),
        "sysu-mm01:4": ("4", "rgb"),
        "sysu-mm01:6": ("6", "nir"),
    }
    assert split.protocol == "sysu-all"


def test_regdb_reads_one_split(tmp_path):
    (tmp_path / "idx").mkdir()
    for part in ("train", "test"):
        for name in ("visible", "thermal"):
            for trial in (1, 2):
                row = f"{name.title()}/{part}{trial}/a.bmp {trial}7\n"
                (tmp_path / "idx" / f"{part}_{name}_{trial}.txt").write_text(row)
    split = read_dataset("regdb-2", tmp_path)
    assert [(s.identity, *s.images) for s in split.gallery] == [("test-27", "rgb"), ("test-27", "tir")]
    assert split.train.values("identity") == ["train-27"]  # train and test both number from 0: not the same persons
    assert split.gallery[1].images["tir"] == tmp_path / "Thermal" / "test2" / "a.bmp"
    with pytest.raises(DatasetError, match="train_visible_3"):
        read_dataset("regdb-3", tmp_path)


def test_msvr310_reads_scenes(tmp_path):
    for part in ("bounding_box_train", "query3", "bounding_box_test"):
        for modality in ("vis", "ni", "th"):
            picture(tmp_path / part / "0019" / modality / "0019_s012_v3_000.jpg")
    split = read_dataset("msvr310", tmp_path)
    (sighting,) = split.query
    assert (sighting.identity, sighting.scene, sighting.view, list(sighting.images)) == (
        "0019",
        "012",
        "msvr310:3",
        ["rgb", "nir", "tir"],
    )
    (tmp_path / "query3" / "0019" / "th" / "0019_s012_v3_000.jpg").unlink()
    with pytest.raises(DatasetError, match=r"th lacks 0019_s012_v3_000\.jpg"):
        read_dataset("msvr310", tmp_path)


@pytest.mark.parametrize(
    ("name", "folders", "file"),
    [
        ("ltcc", ("train", "query", "test"), "094_1_c9_015833.png"),
        ("vc-clothes", ("train", "query", "gallery"), "094-9-1-02.jpg"),
    ],
)
def test_clothes_are_in_the_name(tmp_path, name, folders, file):
    for folder in folders:
        picture(tmp_path / folder / file)
    split = read_dataset(name, tmp_path)
    assert [(s.identity, s.clothes, s.camera) for s in split.query] == [("094", "1", f"{name}:9")]


def test_prcc_cameras_are_folders(tmp_path):
    picture(tmp_path / "prcc" / "rgb" / "train" / "001" / "C_cropped_rgb001.jpg")
    for camera in "ABC":
        picture(tmp_path / "prcc" / "rgb" / "test" / camera / "002" / "cropped_rgb1.jpg")
    split = read_dataset("prcc", tmp_path / "prcc")
    assert [(s.identity, s.camera, s.clothes) for s in split.train] == [("001", "prcc:C", "2")]
    assert [(s.identity, s.camera, s.clothes) for s in split.gallery] == [
        ("002", "prcc:A", "1"), ("002", "prcc:B", "1"), ("002", "prcc:C", "2"),
    ]  # fmt: skip


def test_joined_sets_keep_their_identities_apart(market, tmp_path):
    import shutil

    shutil.copytree(market, tmp_path / "other", ignore=shutil.ignore_patterns("-1*"))  # DukeMTMC has none
    one = read_dataset("market1501", market)
    split = read_dataset("market1501+dukemtmc", f"{market}:{tmp_path / 'other'}")
    assert len(split.train) == 2 * len(one.train)
    assert len(split.train.values("identity")) == 2 * len(one.train.values("identity"))
    assert split.train.values("camera") == ["dukemtmc:1", "dukemtmc:2", "market1501:1", "market1501:2"]
    assert split.query.column("identity") == [f"market1501:{i}" for i in one.query.column("identity")]
    assert split.gallery.paths == one.gallery.paths
    assert split.notes[-1].endswith(" Market-1501, DukeMTMC-reID; tested on Market-1501")
    with pytest.raises(ConfigError, match="2 data sets and --root names 1 folders"):
        read_dataset("market1501+dukemtmc", market)
    with pytest.raises(ConfigError, match="no data set named 'duke'"):
        read_dataset("market1501+duke", market)


@pytest.mark.parametrize("name", sorted(set(CATALOG) - {"own"}))
def test_every_set_of_the_catalog_qualifies_its_cameras_and_views(name, tmp_path, monkeypatch):
    table = SightingTable.of(
        [Sighting({"rgb": tmp_path / "a.jpg"}, "7", "1", "front", scene="s", clothes="c", tracklet="t"),
         Sighting({"rgb": tmp_path / "b.jpg"}, "7")]
    )  # fmt: skip
    monkeypatch.setitem(CATALOG, name, lambda root: Split(name, table, table, table))
    split = read_dataset(name, tmp_path)
    owner = "dukemtmc" if name == "occluded-duke" else name  # Occluded-Duke has DukeMTMC's cameras
    assert split.gallery is split.query
    for part in (split.train, split.query):
        assert (part.column("camera"), part.column("view")) == ([f"{owner}:1", None], [f"{owner}:front", None])
        assert [part[0].identity, part[0].scene, part[0].clothes, part[0].tracklet] == ["7", "s", "c", "t"]
    assert split.protocol == PROTOCOLS.get(name, "market")


def test_own_images_keep_the_names_of_their_cameras(tmp_path):
    for name in ("a", "b", "c", "d"):
        picture(tmp_path / f"{name}.jpg")
    rows = "a.jpg,x,door,left,train\nb.jpg,y,hall,left,train\nc.jpg,z,door,left,query\nd.jpg,z,hall,left,gallery\n"
    (tmp_path / "mine.csv").write_text("path,identity,camera,view,split\n" + rows)
    split = read_dataset("own", tmp_path / "mine.csv")
    assert split.train.values("camera") == ["door", "hall"]
    assert (split.query[0].camera, split.query[0].view, split.gallery[0].camera) == ("door", "left", "hall")


def test_tables_qualify_only_the_columns_they_are_told_to():
    table = SightingTable.of([Sighting({"rgb": "a.jpg"}, "1", "2"), Sighting({"rgb": "b.jpg"})])
    qualified = table.qualify("set", ("identity",))
    assert qualified.column("identity") == ["set:1", None]
    assert qualified.column("camera") == ["2", None]
    assert table.column("identity") == ["1", None]  # the table itself is unchanged
    assert qualified.arrow.schema == table.arrow.schema


def test_inspection_counts_each_part(market, tmp_path):
    inspection = inspect_dataset("market1501", market)
    assert inspection.corrupt is None
    counts = {part.part: (part.sightings, part.images, part.identities, part.cameras) for part in inspection.parts}
    assert counts == {"train": (24, 24, 6, 2), "query": (8, 8, 4, 2), "gallery": (10, 10, 5, 2)}
    assert {part.modalities for part in inspection.parts} == {("rgb",)}
    write_tables(inspection.split, tmp_path / "tables")
    assert list(SightingTable.read(tmp_path / "tables" / "train.parquet")) == list(inspection.split.train)
    with pytest.raises(ConfigError, match="no data set named 'marke'"):
        inspect_dataset("marke", market)


def test_inspection_decodes_every_picture_once(market):
    bad = [market / "query" / "0007_c1s1_000000_00.jpg", market / "bounding_box_train" / "0003_c2s1_000001_00.jpg"]
    bad[0].write_bytes(b"")
    bad[1].write_bytes(bad[1].read_bytes()[:300])
    progress = []
    inspection = inspect_dataset("market1501", market, check=True, progress=progress.append)
    assert max(progress) == 42
    assert len(inspection.corrupt) == 2
    for file, why in zip(sorted(bad), ("is cut short", "is empty"), strict=True):
        (reason,) = [reason for reason in inspection.corrupt if str(file) in reason]
        assert why in reason


def test_inspection_of_sightings_counts_their_images(painted):
    inspection = inspect_dataset("synthetic", painted, check=True)
    assert inspection.corrupt == []
    train = inspection.parts[0]
    assert (train.sightings, train.images, train.modalities) == (24, 72, ("rgb", "nir", "tir"))


def test_painted_in_the_layout_of_rgbnt201(painted):
    split = read_dataset("synthetic", painted)
    assert (len(split.train), len(split.query)) == (6 * 4, 4 * 4)
    assert split.gallery is split.query
    assert split.train.modalities == ("rgb", "nir", "tir")
    for path in split.train[0].images.values():
        with Image.open(path) as image:
            assert image.size == (64, 128)


def test_painting_follows_from_the_seed(painted, tmp_path):
    for name, seed in (("again", 0), ("other", 1)):
        synthetic.write(tmp_path / name, synthetic.Plan(train=1, test=1, cameras=1, shots=1, seed=seed))
    name = "train_171/TI/000001_cam1_0_00.jpg"
    assert (tmp_path / "again" / name).read_bytes() == (painted / name).read_bytes()
    assert (tmp_path / "other" / name).read_bytes() != (painted / name).read_bytes()


def test_an_unpaired_modality_is_refused(tmp_path):
    synthetic.write(tmp_path / "p", synthetic.Plan(train=2, test=2, cameras=1, shots=1))
    next((tmp_path / "p" / "test" / "NI").iterdir()).unlink()
    with pytest.raises(DatasetError, match="lacks 00000"):
        read_dataset("rgbnt201", tmp_path / "p")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_cuhk03_counts():
    split = read_dataset("cuhk03", SHARED / "data" / "cuhk03-np" / "detected")
    assert (len(split.train), len(split.query), len(split.gallery)) == (7365, 1400, 5332)
    assert [len(t.values("identity")) for t in (split.train, split.query, split.gallery)] == [767, 700, 700]


def test_lists_that_are_no_lists_are_named(tmp_path):
    for folder in ("image", "train_test_split", "idx", "exp", "image_train", "image_query", "image_test"):
        (tmp_path / folder).mkdir()
    for camera in range(1, 7):
        (tmp_path / f"cam{camera}").mkdir()
    lists = {"vehicleid": "train_test_split/test_list_800.txt", "regdb": "idx/train_visible_1.txt",
             "sysu-mm01": "exp/train_id.txt", "veri776": "keypoint_train.txt"}  # fmt: skip
    for name, file in lists.items():
        for content in (b"\xff\xfe", b"alone\n", "\u00b2".encode(), b"9" * 5000):
            (tmp_path / file).write_bytes(content)
            with pytest.raises(DatasetError, match=file):
                read_dataset(name, tmp_path)


def test_a_list_with_numbers_of_any_length(tmp_path):
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
    (tmp_path / "list_train.txt").write_text(f"0000/0000_000_01_0303_0.jpg {'9' * 5000}\n")
    with pytest.raises(DatasetError, match=r"list_train\.txt line 1 is not of the form"):
        read_dataset("msmt17", tmp_path)


def test_fractions_that_leave_nothing_are_refused(tmp_path):
    for identity in "ab":
        picture(tmp_path / identity / "0.jpg")
    for fraction in (0.0, 1.0, -1.0, 7.0, float("nan")):
        with pytest.raises(ConfigError, match="fraction of test identities must be between 0 and 1"):
            read_table(tmp_path, test_fraction=fraction)
    split = read_table(tmp_path, test_fraction=0.99)
    assert (len(split.train), len(split.query)) == (1, 1)
    with pytest.raises(ConfigError, match=r"validation_fraction 0\.5 leaves no identity for training"):
        hold_out(split, 0.5, seed=0)
