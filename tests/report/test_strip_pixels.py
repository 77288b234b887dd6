"""A rank strip pixel for pixel against one that is drawn here, at positions that are written as numbers of pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps

from resight.config.evaluation import Evaluation
from resight.data.sightings import MODALITIES, Sighting, SightingTable
from resight.evaluation.evaluate import measure
from resight.inference.embeddings import Embeddings, EmbeddingsInfo
from resight.report.cells import short_names
from resight.report.strips import _evenly_spaced, rank_strip, save_picture

BLUE, ORANGE, GREY = (0, 114, 178), (213, 94, 0), (70, 70, 70)
LINE, CELL = 14, 112  # pixels: a line of text, and the width of a cell with its frame of 4
FONT = ImageFont.load_default(11)


def painted_file(path, size):
    """A picture of random colours: every pixel of it can be told from its neighbours."""
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def unit(rows):
    x = np.array(rows, np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def expected_strip(result, queries, k, height, name):
    """Draw the strip of these query rows, by the definitions."""
    query, gallery = result.query.sightings, result.gallery.sightings
    modalities = [m for m in MODALITIES if any(m in s.images for s in [*query, *gallery])]
    framed = len(modalities) * height + 8
    strip = Image.new("RGB", (30 + (k + 1) * (CELL + 10), 62 + len(queries) * (framed + 6 * LINE + 20)), "white")
    draw = ImageDraw.Draw(strip)

    def cell(row, column, sighting, colour, above):
        left = 10 + column * 122 + (20 if column else 0)
        top = 62 + row * (framed + 104)
        for number, text in enumerate(above):
            draw.text((left, top + 14 * number), text, (30, 30, 30), FONT)
        draw.rectangle((left, top + 28, left + 111, top + 28 + framed - 1), fill=colour)
        for number, modality in enumerate(modalities):
            box = Image.new("RGB", (104, height), (235, 235, 235))
            if modality in sighting.images:
                with Image.open(sighting.images[modality]) as picture:
                    fitted = ImageOps.contain(picture.convert("RGB"), (104, height))
                box.paste(fitted, ((104 - fitted.width) // 2, (height - fitted.height) // 2))
            strip.paste(box, (left + 4, top + 32 + number * height))
        below = (
            next(iter(sighting.images.values())).stem, f"id {sighting.identity or 'unknown'}",
            f"camera {sighting.camera or 'unknown'}",
            " + ".join(sighting.images),
        )  # fmt: skip
        for number, text in enumerate(below):
            draw.text((left, top + 29 + framed + 14 * number), text, (30, 30, 30), FONT)
        return left, top

    measured = sum(not np.isnan(precision) for precision in naive_precision(result))
    header = (
        f"{name}, protocol {result.protocol.name}: {len(queries)} of {measured} quer{'y' if measured == 1 else 'ies'}, "
        "from the best average precision (AP) at the top to the worst",
        f"Left: the query. Then the {k} gallery sightings ranked first.",
        "Blue frame and tick: right identity. Orange frame and cross: wrong identity.",
    )
    for number, text in enumerate(header):
        draw.text((10, 10 + 14 * number), text, (30, 30, 30), FONT)
    for row, q in enumerate(queries):
        cell(row, 0, query[q], GREY, ["query", f"AP {100 * naive_precision(result)[q]:.1f} %"])
        for rank, (g, similarity) in enumerate(naive_ranking(result, q)[:k], start=1):
            right = query[q].identity is not None and query[q].identity == gallery[g].identity
            colour = BLUE if right else ORANGE
            left, top = cell(row, rank, gallery[g], colour, [f"rank {rank}", f"similarity {similarity:.4f}"])
            word = "right" if right else "wrong"
            word_left = left + 112 - int(FONT.getlength(word))
            draw.text((word_left, top), word, colour, FONT)
            x, y = word_left - 14, top + 2
            if right:
                draw.line([(x, y + 5), (x + 4, y + 9), (x + 10, y + 1)], colour, 2)
            else:
                draw.line([(x + 1, y + 1), (x + 9, y + 9)], colour, 2)
                draw.line([(x + 1, y + 9), (x + 9, y + 1)], colour, 2)
    return strip


def naive_ranking(result, q):
    """Gallery rows and similarities, the nearest first, without those of the query's own scene."""
    one = result.query.sightings[q]
    scored = [
        (float(result.query.vectors[q] @ result.gallery.vectors[g]), -g)
        for g, other in enumerate(result.gallery.sightings)
        if one.scene is None or one.scene != other.scene
    ]
    return [(-minus_g, similarity) for similarity, minus_g in sorted(scored, reverse=True)]


def naive_precision(result):
    values = []
    for q, one in enumerate(result.query.sightings):
        names = [result.gallery.sightings[g].identity for g, _ in naive_ranking(result, q)]
        ranks = [rank for rank, name in enumerate(names, start=1) if name == one.identity is not None]
        values.append(np.mean([(n + 1) / rank for n, rank in enumerate(ranks)]) if ranks else np.nan)
    return values


def assert_same(strip, expected):
    assert strip.size == expected.size
    different = np.argwhere((np.asarray(strip) != np.asarray(expected)).any(2))
    assert not len(different), f"{len(different)} pixels, the first at row and column {different[0]}"


@pytest.fixture
def several(tmp_path):
    """Two modalities; unknown labels; a query for which only gallery row 0 is left; one that has no match."""

    def files(number, **sizes):
        return {name: painted_file(tmp_path / f"{'n' * number}{name}.png", size) for name, size in sizes.items()}

    gallery = [
        Sighting(files(1, rgb=(52, 52)), "a", "1"),
        Sighting(files(2, rgb=(90, 30), nir=(20, 60)), "b", "2", scene="s"),
        Sighting(files(3, nir=(13, 31)), None, None, scene="s"),
        Sighting(files(4, rgb=(33, 40)), "a", "2", scene="s"),
    ]
    query = [
        Sighting(files(5, rgb=(40, 20)), "a", "2", scene="s"),  # only row 0 is left
        Sighting(files(6, rgb=(40, 40)), "b", "1"),
        Sighting(files(7, nir=(40, 30)), "a", None),
        Sighting(files(8, rgb=(40, 40)), "c", "1"),  # has no match
    ]
    info = EmbeddingsInfo(dataset="few")
    return measure(
        Embeddings(unit([[1, 0, 0], [0.2, 1, 0], [0.3, 0.2, 1], [1, 1, 1]]), SightingTable.of(query), info),
        Embeddings(unit([[1, 0.1, 0], [0.6, 0.7, 0], [0, 0.1, 1], [0, 1, 0.1]]), SightingTable.of(gallery), info),
        Evaluation(junk="same-place"),
    )


def test_all_queries_with_a_match_are_drawn(several):
    precision = naive_precision(several)
    assert precision[0] == 1 > precision[1] > precision[2]
    # The aspects are 0.5, 1 and 0.75, so an image of 104 pixels is 78 high.
    assert_same(rank_strip(several, rows=8, k=4), expected_strip(several, [0, 1, 2], 4, 78, "few"))


def test_the_best_and_the_worst_of_three_queries_are_drawn(several):
    # The median of the aspects 0.5 and 0.75 is that of 65 pixels.
    assert_same(rank_strip(several, rows=2, k=2), expected_strip(several, [0, 2], 2, 65, "few"))


@pytest.mark.parametrize(
    ("size", "height", "modality", "other"),
    [
        ((40, 10), 64, "rgb", "rgb"),  # the lowest
        ((104, 65), 65, "tir", "tir"),
        ((10, 19), 198, "rgb", "rgb"),
        ((10, 50), 208, "rgb", "rgb"),  # the highest with one modality
        ((10, 30), 128, "nir", "tir"),  # the highest with several
    ],
)
def test_the_height_of_images(tmp_path, size, height, modality, other):
    query = [Sighting({modality: painted_file(tmp_path / "q.png", size)}, "a", "1")]
    gallery = [Sighting({other: painted_file(tmp_path / "gg.png", (30, 20))}, "a", "2")]
    result = measure(
        Embeddings(unit([[1, 0.5]]), SightingTable.of(query)), Embeddings(unit([[1, 0]]), SightingTable.of(gallery)),
        Evaluation(),
    )  # fmt: skip
    assert_same(rank_strip(result, rows=3, k=2), expected_strip(result, [0], 2, height, "embeddings"))


@pytest.mark.parametrize(("valid", "rows"), [(0, 3), (1, 3), (2, 1), (3, 3), (10, 4), (11, 3), (100, 8), (5, 8)])
def test_rows_are_evenly_spaced_from_the_best_to_the_worst(valid, rows):
    rng = np.random.default_rng(valid)
    precision = np.append(rng.permutation(valid) / 200, [np.nan] * 4)
    rng.shuffle(precision)
    best_first = sorted((q for q in range(len(precision)) if precision[q] >= 0), key=lambda q: -precision[q])
    count = min(rows, valid)
    places = [0] if count == 1 else [round(n * (valid - 1) / (count - 1)) for n in range(count)]
    assert _evenly_spaced(precision, rows).tolist() == [best_first[place] for place in places]


def name_of(identity):
    return short_names([Sighting({"rgb": Path("x.jpg")}, identity, "1")])[f"id {identity}"]


def test_names_that_are_too_wide_lose_their_middle():
    """Each is cut as little as its cell of 112 pixels allows."""
    seen = set()
    for length in range(1, 60):
        for letters in ("i", "W", "0123456789"):
            identity = (letters * length)[:length]
            text, name = f"id {identity}", name_of(identity)
            seen.add(name == text)
            assert FONT.getlength(name) <= 112
            if FONT.getlength(text) <= 112:
                assert name == text
                continue
            head, mark, tail = name.partition("…")
            assert mark
            assert text.startswith(head)
            assert text.endswith(tail)
            kept = len(head) + len(tail)
            assert len(head) == kept // 2
            longer = f"{text[: (kept + 1) // 2]}…{text[-(kept + 1 - (kept + 1) // 2) :]}"
            assert kept + 1 == len(text) or FONT.getlength(longer) > 112
    assert seen == {True, False}


def test_a_name_as_wide_as_its_cell_is_not_cut():
    text = f"id {'i' * 33}"
    assert FONT.getlength(text) == 112
    assert name_of("i" * 33) == text
    assert "…" in name_of("i" * 34)


def test_different_names_stay_different():
    identities = [f"{'x' * 20}{n}{'y' * 20}" for n in range(3)]
    short = short_names(Sighting({"rgb": Path("x.jpg")}, name, "1") for name in [*identities, identities[0], "b"])
    names = [short[f"id {identity}"] for identity in identities]
    assert [name.rpartition(" ")[2] for name in names[1:]] == ["(2)", "(3)"]
    assert "(" not in names[0]
    assert all("…" in name and FONT.getlength(name) <= 112 for name in names)
    assert (short["id b"], short["camera 1"], short["x"], len(short)) == ("id b", "camera 1", "x", 6)
    assert len(set(short.values())) == 6


def test_the_shortest_cut_has_two_letters(monkeypatch):
    """A font so wide that nothing fits: the ends are left."""

    class Wide:
        def getlength(self, text):
            return 200.0

    monkeypatch.setattr("resight.report.cells._font", Wide)
    assert name_of("abcdef") == "i…f"


def test_a_picture_is_saved_as_png(tmp_path):
    picture = Image.new("RGB", (3, 2), BLUE)
    save_picture(picture, tmp_path / "new" / "p.png")
    with Image.open(tmp_path / "new" / "p.png") as saved:
        assert (saved.format, saved.size, saved.getpixel((2, 1))) == ("PNG", (3, 2), BLUE)
