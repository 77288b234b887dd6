"""Pictures of more than 8 bits become 8 bits by the stated rule, recomputed value by value; others do not change."""

import struct
from math import floor, inf, isfinite, isnan, nan

import numpy as np
import pytest
import torch
from conftest import picture
from numpy.testing import assert_array_equal
from PIL import Image

from resight.config.scaling import require_modalities, rule_of
from resight.config.sections import Embedding, Preprocessing
from resight.data import cache
from resight.data.decode import as_array, decode_array, image_size
from resight.data.image import as_tensor, corrupt, decode
from resight.data.inspect import inspect_dataset
from resight.data.loader import Loader
from resight.data.picture_notes import PictureNotes
from resight.data.scaling import MIDDLE, rules_of_files
from resight.data.sightings import Sighting, SightingTable
from resight.data.vocabulary import Vocabulary
from resight.errors import ConfigError, PictureError
from resight.inference import decoding
from resight.inference.runtime import prepare

HEIGHT, WIDTH = 13, 9
LIMITS = ("limits", 7000.0, 9000.0)
PERCENTILES = ("percentiles", 1.0, 99.0)


def temperatures(kind=np.uint16):
    """Values around those of a thermal camera in centikelvin."""
    return np.random.default_rng(0).normal(8000, 700, (HEIGHT, WIDTH)).clip(6000, 10000).astype(kind)


def naive_percentile(values, percent):
    ordered = sorted(float(v) for v in values.flat if isfinite(v))
    place = percent / 100 * (len(ordered) - 1)
    below = floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def naive(values, rule):
    """Level by level, as the rule says; uint8 [h, w, 3]."""
    kind, low, high = rule
    if kind == "percentiles":
        low, high = naive_percentile(values, low), naive_percentile(values, high)
    levels = np.zeros(values.shape, np.uint8)
    for place, value in np.ndenumerate(values):
        if isnan(value) or value < low:
            levels[place] = 0
        elif value > high:
            levels[place] = 255
        else:
            levels[place] = 128 if low == high else round(255 * (float(value) - low) / (high - low))
    return np.stack([levels] * 3, axis=2)


def is_close(found, expected):
    """At most one level apart, and seldom: the last digit of a percentile may differ."""
    apart = np.abs(found.astype(int) - expected.astype(int))
    return found.dtype == np.uint8 and apart.max() <= 1 and (apart > 0).mean() < 0.02


def pgm(values, maximum):
    return b"P5 %d %d %d\n" % (values.shape[1], values.shape[0], maximum) + values.astype(">u2").tobytes()


def unsigned_tiff(values, path):
    """Pillow writes 32 bits as signed only: the tag that says so is changed."""
    Image.fromarray(values.view(np.int32)).save(path)
    data = path.read_bytes()
    entry = struct.pack("<HHI", 339, 3, 1)
    assert data.count(entry + b"\2") == 1
    path.write_bytes(data.replace(entry + b"\2", entry + b"\1"))


def written(folder):
    """The values in a file of each kind of more than 8 bits, by the file."""
    values, files = temperatures(), {}
    for name in ("16.png", "16.tif"):
        files[folder / name] = values
        Image.fromarray(values).save(folder / name)
    files[folder / "big-endian.tif"] = values
    Image.frombytes("I;16B", (WIDTH, HEIGHT), values.astype(">u2").tobytes()).save(folder / "big-endian.tif")
    for maximum in (65535, 10001):
        files[folder / f"{maximum}.pgm"] = values
        (folder / f"{maximum}.pgm").write_bytes(pgm(values, maximum))
    files[folder / "signed.tif"] = temperatures(np.int32) * 1000 - 2**23
    Image.fromarray(files[folder / "signed.tif"]).save(folder / "signed.tif")
    files[folder / "unsigned.tif"] = temperatures(np.uint32) * np.uint32(400_000)
    unsigned_tiff(files[folder / "unsigned.tif"], folder / "unsigned.tif")
    real = temperatures(np.float32)
    real[0, :3] = nan, inf, -inf
    files[folder / "float.tif"] = real
    Image.fromarray(real).save(folder / "float.tif")
    return files


@pytest.mark.parametrize("part", [(0.0, 100.0), (1.0, 99.0), (12.5, 50.0)])
def test_every_kind_of_file_follows_the_rule(tmp_path, part):
    for path, values in written(tmp_path).items():
        finite = [float(v) for v in values.flat if isfinite(v)]
        low, high = (min(finite) + share / 100 * (max(finite) - min(finite)) for share in part)
        for rule in (("percentiles", *part), ("limits", low, high)):
            expected = naive(values, rule)
            assert len(np.unique(expected)) > 30, path
            found = decode_array(path, rule=rule)
            assert is_close(found, expected), path
            assert_array_equal(decode_array(path.read_bytes(), rule=rule), found)
            assert_array_equal(as_array(path, rule), found)
            assert_array_equal(as_array(Image.open(path), rule), found)
            assert_array_equal(decode(path, rule=rule).permute(1, 2, 0).numpy(), found)
            assert_array_equal(as_tensor(path, rule).permute(1, 2, 0).numpy(), found)
            assert_array_equal(prepare(path, (HEIGHT, WIDTH), "bilinear", rule).transpose(1, 2, 0), found)
        assert image_size(path) == (WIDTH, HEIGHT)
        with pytest.raises(PictureError, match="state a rule with the setting scaling, such as --scaling default"):
            decode_array(path)


def test_limits_are_in_the_units_of_the_picture(tmp_path):
    Image.fromarray(np.array([[6999, 7000, 7004, 8000, 9000, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert decode_array(tmp_path / "a.png", rule=LIMITS)[0].tolist() == [[n] * 3 for n in (0, 0, 1, 128, 255, 255)]


@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "i4", "i8", "f2", "f4", "f8", ">u2", ">f4"])
def test_arrays_and_tensors_follow_the_rule_of_files(kind):
    values = temperatures(np.dtype(kind))
    for rule in (LIMITS, PERCENTILES):
        found = as_array(values, rule)
        assert is_close(found, naive(values, rule))
        assert_array_equal(as_array(values[:, :, None], rule), found)
        if kind[0] != ">":
            for tensor in (torch.from_numpy(values), torch.from_numpy(values)[None]):
                assert_array_equal(as_tensor(tensor, rule).permute(1, 2, 0).numpy(), found)
    with pytest.raises(PictureError, match=f"the array is a {np.dtype(kind)} picture, and 8 bits are needed"):
        as_array(values)


def test_bfloat16_is_scaled_too():
    values = torch.from_numpy(temperatures(np.float32)).bfloat16().requires_grad_()
    expected = naive(values.detach().float().numpy(), LIMITS)
    assert_array_equal(as_tensor(values, LIMITS).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.uint16), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), bool), np.zeros((0, 4), "f4"),
        np.zeros((4, 4), complex), np.zeros((4, 4), object), np.zeros(4, np.uint8), np.zeros((1, 4, 4, 1), np.uint16),
    ],
)  # fmt: skip
def test_arrays_of_other_forms_are_refused(array):
    with pytest.raises(PictureError, match=r"an array must be uint8 \[h, w, 3\] in RGB, or grey \[h, w\], not "):
        as_array(array, PERCENTILES)
    if array.dtype != object:
        with pytest.raises(PictureError, match=r"a tensor must be uint8 \[3, h, w\] in RGB, or grey \[h, w\], not "):
            as_tensor(torch.from_numpy(array), PERCENTILES)


def test_8_bits_are_never_rescaled(tmp_path):
    grey = np.arange(100, 100 + HEIGHT * WIDTH // 3, dtype=np.uint8)[: 3 * WIDTH].reshape(3, WIDTH)
    expected = np.stack([grey] * 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    for rule in (None, PERCENTILES, ("limits", 100.0, 110.0)):
        for source in (tmp_path / "grey.png", grey, grey[:, :, None], Image.fromarray(grey)):
            assert_array_equal(as_array(source, rule), expected)
        assert_array_equal(as_tensor(torch.from_numpy(grey)[None], rule).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("value", [0, 8000, 65535])
def test_a_constant_picture_becomes_one_level(value):
    constant = np.full((4, 4), value, np.uint16)
    assert (as_array(constant, PERCENTILES) == MIDDLE).all()
    assert_array_equal(as_array(constant, LIMITS), naive(constant, LIMITS))
    almost = constant.astype(np.float32).repeat(30, 0)
    almost[0, :3] = value - 1, value + 1, nan  # both percentiles are the value
    found = as_array(almost, ("percentiles", 5.0, 95.0))
    assert_array_equal(found, naive(almost, ("percentiles", 5.0, 95.0)))
    assert found[0, :, 0].tolist() == [0, 255, 0, MIDDLE]


def test_nan_is_black_and_has_no_part_in_percentiles():
    values = np.array([[nan, 1, 2, 3], [inf, -inf, nan, 5]], np.float32)
    assert as_array(values, ("percentiles", 0.0, 100.0))[..., 0].tolist() == [[0, 0, 64, 128], [255, 0, 0, 255]]
    for rule in (PERCENTILES, LIMITS):
        with pytest.raises(PictureError, match="the array has no finite value: all of its pixels are NaN or infinite"):
            as_array(np.array([[nan, inf]]), rule)


def test_large_pictures_are_scaled_in_parts(monkeypatch):
    values = temperatures()
    whole = as_array(values, PERCENTILES)
    for block in (1, 2 * WIDTH, 5 * WIDTH + 1):
        monkeypatch.setattr("resight.data.scaling._BLOCK", block)
        assert_array_equal(as_array(values, PERCENTILES), whole)


def test_decoding_by_a_rule_reserves_the_bytes_of_the_values(tmp_path, monkeypatch):
    Image.fromarray(temperatures()).save(tmp_path / "a.png")
    limit = decoding.ByteLimit(10**6)
    monkeypatch.setattr(decoding, "DECODED", limit)
    found = []
    decoding.decode_prepared(tmp_path / "a.png", lambda image: found.append(limit.used) or image, LIMITS)
    assert found == [(tmp_path / "a.png").stat().st_size + 16 * WIDTH * HEIGHT]


# The setting


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (("percentiles", 99, 1), "scaling.tir: the low end must be less than the high end, and 99 is not less than 1"),
        (("limits", 5, 5), "5 is not less than 5"),
        (("limits", -1.7e308, 1.7e308), "the low end must be less"),
        (("percentiles", -1, 50), "percentiles are from 0 to 100, not -1 and 50"),
        (("percentiles", 1, 100.5), "percentiles are from 0 to 100, not 1 and 100.5"),
        (("limits", nan, 1), "scaling.tir.1: Input should be a finite number"),
        (("limits", 0, inf), "scaling.tir.2: Input should be a finite number"),
        (("quantiles", 1, 99), "scaling.tir.0: Input should be 'percentiles' or 'limits'"),
        (("limits", 1), "scaling.tir.2: Field required"),
        ("limits", "scaling.tir: Input should be a valid tuple"),
    ],
)
def test_bad_rules_are_refused(rule, says):
    for section in (Preprocessing(), Embedding()):
        with pytest.raises(ConfigError) as raised:
            section.changed(scaling={"tir": rule})
        assert says in str(raised.value)
        assert "\n" not in str(raised.value)


def test_the_rule_of_a_modality_is_its_own_or_the_default():
    rules = {"tir": LIMITS, "default": PERCENTILES}
    assert [rule_of(rules, name) for name in ("tir", "rgb", None)] == [LIMITS, PERCENTILES, PERCENTILES]
    assert [rule_of({"tir": LIMITS}, name) for name in ("tir", "rgb", None)] == [LIMITS, None, None]
    require_modalities(rules, ("rgb", "tir"))
    with pytest.raises(ConfigError, match=r"a rule for 'tir', and the modalities are rgb, nir \(default for all\)"):
        require_modalities(rules, ("rgb", "nir"))
    section = Preprocessing(scaling=rules)
    assert Preprocessing.model_validate_json(section.model_dump_json()) == section


# Batches and the cache


def table_of(folder):
    """Two sightings in colour and in 16 bits, and the 16-bit values."""
    values = [temperatures(), temperatures().T]
    for n, pixels in enumerate(values):
        Image.fromarray(pixels).save(folder / f"{n}.png")
    images = [{"rgb": picture(folder / f"{n}.jpg", n), "tir": folder / f"{n}.png"} for n in range(2)]
    return SightingTable.of(Sighting(each, identity=str(n), camera="c") for n, each in enumerate(images)), values


def test_batches_have_the_scaled_pixels_with_and_without_the_cache(tmp_path):
    table, values = table_of(tmp_path)
    known = Vocabulary.of(table)
    loader, packed = (Loader(table, known, (HEIGHT, WIDTH), "bilinear", {"tir": LIMITS}) for _ in range(2))
    packed.pack()
    one, other = (next(iter(made.batches([[0, 1]]))) for made in (loader, packed))
    assert torch.equal(one.images, other.images)
    assert_array_equal(one.images[0, 1].permute(1, 2, 0).numpy(), naive(values[0], LIMITS))
    with pytest.raises(PictureError, match=r"0\.png is a 16-bit picture"):
        next(iter(Loader(table, known, (HEIGHT, WIDTH), "bilinear").batches([[0]])))
    with pytest.raises(PictureError, match=r"0\.png is a 16-bit picture"):
        Loader(table, known, (HEIGHT, WIDTH), "bilinear", {"rgb": LIMITS}).pack()


def test_the_cache_is_keyed_by_the_rule(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIGHT_CACHE", str(tmp_path / "cache"))
    table, _ = table_of(tmp_path)
    packed = {}
    for rule in (LIMITS, PERCENTILES, ("limits", 7000.0, 9500.0), LIMITS):
        loader = Loader(table, Vocabulary.of(table), (8, 8), "bilinear", {"tir": rule})
        loader.pack()
        packed[rule] = loader.packed
    assert len(list(cache.cache_folder().glob("*.u8"))) == 3
    assert len({images.numpy().tobytes() for images in packed.values()}) == 3


# Checks


def test_a_check_follows_the_rules_of_the_modalities(tmp_path):
    table, _ = table_of(tmp_path)
    files = sorted(table.paths)
    assert [path.name for path, _ in corrupt(files)] == ["0.png", "1.png"]
    assert not corrupt(files, rules=rules_of_files([table], {"tir": LIMITS}))
    assert len(corrupt(files, rules=rules_of_files([table], {"nir": LIMITS, "rgb": LIMITS}))) == 2
    assert rules_of_files([table], {}) == {}
    table.write(tmp_path / "table.csv")
    assert len(inspect_dataset("own", tmp_path / "table.csv", check=True).corrupt or ()) == 2
    assert inspect_dataset("own", tmp_path / "table.csv", check=True, scaling={"tir": LIMITS}).corrupt == []
    with pytest.raises(ConfigError, match="scaling has a rule for 'thermal'"):
        inspect_dataset("own", tmp_path / "table.csv", scaling={"thermal": LIMITS})


def write_noted(folder):
    """Pictures of which something is left out or converted, and some of which nothing is."""
    folder.mkdir()
    one, two = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    for name in ("b.gif", "a.tif", "c.webp", "d.png"):
        one.save(folder / name, save_all=True, append_images=[two])
    data = (folder / "b.gif").read_bytes()
    (folder / "e.gif").write_bytes(data[: data.rindex(b"\x2c") + 3])  # the second frame is cut
    one.convert("CMYK").save(folder / "f.jpg")
    clear = one.copy()
    clear.putalpha(Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)))
    clear.save(folder / "g.png")
    one.save(folder / "h.mpo", save_all=True, append_images=[two])  # previews, as cameras store them
    one.convert("RGBA").save(folder / "opaque.png")
    one.save(folder / "plain.gif")


def test_what_is_left_out_is_counted_once(tmp_path):
    write_noted(tmp_path / "x")
    files, notes = sorted((tmp_path / "x").iterdir()), PictureNotes()
    assert not corrupt(files, notes=notes)
    assert notes.lines() == [
        f"4 pictures have several frames: the first is used ({tmp_path}/x/a.tif, ...)",
        f"1 picture has transparent pixels: they are laid over black ({tmp_path}/x/g.png)",
        f"1 picture is of CMYK: converted to RGB without a colour profile ({tmp_path}/x/f.jpg)",
    ]
    more = PictureNotes()
    more.merge({"frames": (2, "!.gif")})
    more.merge(notes.counts())
    assert more.lines()[0] == "6 pictures have several frames: the first is used (!.gif, ...)"
    for path in files:
        assert not np.array_equal(decode_array(path)[4, 4], (0, 0, 255)), path  # the second frame


def test_an_inspection_says_what_is_left_out(tmp_path):
    write_noted(tmp_path / "x")
    rows = [f"x/{path.name},{n % 3}" for n, path in enumerate(sorted((tmp_path / "x").iterdir()))]
    (tmp_path / "table.csv").write_text("\n".join(["path,identity", *rows]))
    inspection = inspect_dataset("own", tmp_path / "table.csv", check=True)
    assert [note.split(" (")[0] for note in inspection.notes[-3:]] == [
        "4 pictures have several frames: the first is used",
        "1 picture has transparent pixels: they are laid over black",
        "1 picture is of CMYK: converted to RGB without a colour profile",
    ]
