"""The compiled loops against plain ones, with sizes at the borders of their groups and blocks."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from resight.retrieval import scores
from resight.retrieval.junk import RULES, matching
from resight.retrieval.kernels import counting, dots, numba_kernels, products, reciprocal
from resight.retrieval.labels import Labels
from resight.retrieval.scores import InnerProducts, Matrix

NONE = RULES["none"]


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def labels(identity, first=0):
    return Labels.of(identity=identity, camera=np.arange(len(identity)) % 3, picture=np.arange(len(identity)) + first)


def naive_before(score, matches):
    """Items before each match: those that score higher, and those that score the same in an earlier row."""
    return np.array(
        [(score[q] > score[q, g]).sum() + (score[q, :g] == score[q, g]).sum() for q, g in zip(*matches, strict=True)]
    )


@pytest.mark.parametrize("size", [4095, 4096, 4097])
def test_rows_are_counted_at_the_border_of_a_group(size):
    rng = np.random.default_rng(size)
    score = rng.integers(-3, 3, (3, size)).astype(np.float32)
    score[1] = rng.standard_normal(size)
    identity = rng.integers(0, 40, size)
    identity[[0, size - 1]] = 0
    q, g = labels(np.array([0, 0, 1])), labels(identity, 10)
    matches, _ = matching(q, g, NONE)
    assert_array_equal(counting.by_rows(Matrix(score), q, g, NONE, matches), naive_before(score, matches))


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("size", [255, 256, 257, 258, 259])
def test_blocks_are_counted_at_the_borders_of_groups(size, bf16, monkeypatch):
    """Sizes of every remainder by 4, more queries than a group holds, copies, and scores that hardly differ."""
    monkeypatch.setattr(products, "bf16_product_is_faster", lambda: bf16)
    rng = np.random.default_rng(size)
    centre = rng.standard_normal((1, 24))
    query, gallery = (unit(centre + spread * rng.standard_normal((size, 24))) for spread in (0.3, 1e-4))
    gallery[::7] = gallery[0]
    gallery[1::5] = unit(rng.standard_normal((len(gallery[1::5]), 24)))
    q, g = labels(rng.integers(-1, 60, size)), labels(rng.integers(-1, 60, size), 1000)
    matches, _ = matching(q, g, NONE)
    exact = np.float32(query.astype(float) @ gallery.astype(float).T)
    expected = naive_before(exact, matches)
    for block in (size - 1, size, size + 1, 100):
        monkeypatch.setattr(counting, "blocks_of", lambda n, b=block: (slice(a, min(a + b, n)) for a in range(0, n, b)))
        found = counting.by_blocks(InnerProducts(query, gallery), q, g, NONE, matches)
        assert_array_equal(found, expected)


def test_parts_of_the_queries_are_counted_on_their_own(monkeypatch):
    rng = np.random.default_rng(0)
    query, gallery = unit(rng.standard_normal((9, 6))), unit(rng.standard_normal((30, 6)))
    q, g = labels(np.array([0, 9, 1, 2, 2, 9, 9, 0, 3])), labels(rng.integers(0, 4, 30), 100)  # 9 has no match
    matches, _ = matching(q, g, RULES["same-camera"])
    junk = (q.identity[:, None] == g.identity) & (q["camera"][:, None] == g["camera"])
    exact = np.where(junk, -np.inf, np.float32(query.astype(float) @ gallery.astype(float).T))
    for parts in (1, 2, 4, 9, 10):
        monkeypatch.setattr(counting, "_QUERIES", parts)
        monkeypatch.setattr(scores, "_SCORES_BYTES", 4 * 30 * parts)
        for count in (counting.by_blocks, counting.by_rows, counting.by_torch, counting.count_before):
            found = count(InnerProducts(query, gallery), q, g, RULES["same-camera"], matches)
            assert_array_equal(found, naive_before(exact, matches), err_msg=f"{count.__name__}, {parts}")


@pytest.mark.parametrize("bf16", [True, False])
def test_more_doubts_than_a_first_table_holds(bf16, monkeypatch):
    """All scores tie: 256 queries of a group x 300 items, of which each is in doubt."""
    monkeypatch.setattr(products, "bf16_product_is_faster", lambda: bf16)
    query, gallery = np.full((257, 3), 0.5, np.float32), np.full((300, 3), 0.7, np.float32)
    q, g = labels(np.zeros(257)), labels(np.arange(300) % 150, 1000)
    matches, _ = matching(q, g, NONE)
    found = counting.by_blocks(InnerProducts(query, gallery), q, g, NONE, matches)
    assert found.tolist() == [0, 150] * 257
    assert counting._MAX_MATCHES == 0x7FFF  # what an entry of the table can count


def test_counts_of_no_match():
    empty = np.zeros(0, np.int64)
    q, g = labels(np.array([1])), labels(np.array([2]), 5)
    x = np.ones((1, 2), np.float32)
    found = counting.count_before(InnerProducts(x, x), q, g, NONE, (empty, empty))
    assert (found.tolist(), found.dtype) == ([], np.int64)


def test_which_way_of_counting_is_taken(monkeypatch):
    taken = []
    for name in ("by_blocks", "by_rows", "by_torch"):
        monkeypatch.setattr(counting, name, lambda *_, name=name: taken.append(name))
    q, g = labels(np.array([0])), labels(np.zeros(4), 5)
    x = np.ones((4, 2), np.float32)
    pair = (np.zeros(4, np.int64), np.arange(4))
    for limit in (3, 4):
        monkeypatch.setattr(counting, "_MAX_MATCHES", limit)
        counting.count_before(InnerProducts(x[:1], x), q, g, NONE, pair)
    counting.count_before(InnerProducts(x[:1], x.astype(np.float16)), q, g, NONE, pair)
    counting.count_before(InnerProducts(x[:1], x.astype(np.float64)), q, g, NONE, pair)
    counting.count_before(Matrix(np.ones((1, 4), np.float32)), q, g, NONE, pair)
    counting.count_before(InnerProducts(x[:1], x, "cuda"), q, g, NONE, pair)
    monkeypatch.setattr(counting, "compiled", lambda: False)
    counting.count_before(InnerProducts(x[:1], x), q, g, NONE, pair)
    assert taken == ["by_rows", "by_blocks", "by_blocks", "by_rows", "by_rows", "by_torch", "by_torch"]


def test_matches_are_sorted_by_query_then_score_then_later_row():
    query_row = np.array([0, 0, 0, 0, 0, 0, 2, 2, 2])
    score = np.float32([0.5, -1, 0.0, -0.0, 0.5, -2, 3, -np.inf, 3])
    order = counting._ascending(query_row, score)
    assert order.tolist() == [5, 1, 3, 2, 4, 0, 7, 8, 6]
    matched = counting._SortedMatches.of((query_row, np.arange(9)), score, order, 4)
    assert matched.start.tolist() == [0, 6, 6, 9, 9]
    assert matched.gallery_row.tolist() == order.tolist()
    assert matched.score.tolist() == score[order].tolist()
    assert matched.middle().tolist() == [-1.0, 0.0, -np.inf, 0.0]  # the first quarter of a query's matches
    assert matched.before.tolist() == [0] * 9


def test_a_block_of_matches_is_a_view():
    query_row = np.array([0, 1, 1, 3])
    matched = counting._SortedMatches.of((query_row, np.arange(4)), np.float32([0.1, 0.2, 0.3, 0.4]), np.arange(4), 4)
    block = matched.block(slice(1, 4), np.zeros(4), np.full(4, 0.01))
    assert block.start.tolist() == [0, 2, 2, 3]
    assert_allclose(block.score, [0.2, 0.3, 0.4])
    assert block.gallery_row.tolist() == [1, 2, 3]
    above, doubt = products.keys_in_doubt(np.float32([0.2, 0.3, 0.4]), np.zeros(3), np.full(3, 0.01))
    assert_array_equal(block.above_key, above)
    assert_array_equal(block.doubt_key, doubt)
    block.before[1] += 5
    assert matched.before.tolist() == [0, 0, 5, 0]


def test_the_table_says_how_many_matches_a_key_precedes():
    above, doubt = np.array([10, 20, 20, 65000]), np.array([5, 12, 20, 64000])
    table = np.empty(65536, np.uint16)
    numba_kernels._fill(table, above, doubt)
    for key in [*range(30), 63999, 64000, 64999, 65000, 65535]:
        count = sum(key >= a for a in above)
        in_doubt = any(d <= key < a for a, d in zip(above, doubt, strict=True))
        assert table[key] == count + (0x8000 if in_doubt else 0), key


@pytest.mark.parametrize("items", [1, 3, 4, 5, 7, 8, 9])
def test_a_scan_counts_what_is_decided_and_lists_what_is_not(items):
    rng = np.random.default_rng(items)
    table = np.zeros(65536, np.uint16)
    entry = rng.integers(0, 4, 65536) + 0x8000 * (rng.random(65536) < 0.4)
    table[:] = entry
    bits = rng.integers(0, 65536, items).astype(np.uint16)
    before, doubts = np.array([7, 0, 1]), np.full((20, 3), -1, np.int32)
    count = numba_kernels._scan(4, bits, table, 11, before, doubts, 2)
    entries = [int(table[(b ^ 0x8000) if b < 0x8000 else b ^ 0xFFFF]) for b in bits.tolist()]
    expected = [7, 0, 1]
    for m in range(3):
        expected[m] += sum((e & 0x7FFF) > m for e in entries)
    assert before.tolist() == expected
    listed = [[4, n, 11 + (e & 0x7FFF)] for n, e in enumerate(entries) if e & 0x8000]
    assert count == 2 + len(listed)
    assert doubts[2:count].tolist() == listed
    assert (doubts[:2] == -1).all()
    assert (doubts[count:] == -1).all()


@pytest.mark.parametrize("size", [255, 256, 257, 600])
def test_doubts_are_brought_together_by_items(size):
    items = np.random.default_rng(size).integers(0, size, 500).astype(np.int32)
    items[:2] = [size - 1, 0]
    order = numba_kernels._by_item_group(items, size)
    assert_array_equal(order, np.argsort(items // 256, kind="stable"))


def test_keys_sort_as_their_numbers():
    bits = np.array([0x8000, 0x0000, 0x3F80, 0xBF80, 0xFF80, 0x7F80], np.uint16)
    keys = [int(numba_kernels._key(b)) for b in bits]
    assert keys == [0x7FFF, 0x8000, 0xBF80, 0x407F, 0x007F, 0xFF80]
    numbers = (bits.astype(np.uint32) << 16).view(np.float32)
    assert products._key(numbers).tolist() == keys
    between = (bits.astype(np.uint32) << 16 | 1).view(np.float32)[:4]  # a little further from 0
    assert products._key_over(numbers[:4]).tolist() == [key + 1 for key in keys[:4]]
    assert products._key_from(numbers[:4]).tolist() == keys[:4]
    assert products._key_over(between).tolist() == [0x7FFF, 0x8001, 0xBF81, 0x407F]
    assert products._key_from(between).tolist() == [0x7FFF, 0x8001, 0xBF81, 0x407F]


@pytest.mark.parametrize("k", [1, 2, 5])
def test_merging_keeps_the_best_of_all_blocks(k):
    rng = np.random.default_rng(k)
    score = rng.integers(-4, 4, (3, 23)).astype(np.float32)
    score[1, 5:] = -np.inf
    best_scores, best_rows = np.full((3, k), -np.inf, np.float32), np.full((3, k), -1, np.int64)
    for first in range(0, 23, 6):
        numba_kernels.merge_best(score[:, first : first + 6].copy(), first, best_scores, best_rows, 0, 3)
    order = np.argsort(-score, axis=1, kind="stable")[:, :k]
    expected = np.take_along_axis(score, order, 1)
    assert_array_equal(best_scores, expected)
    assert_array_equal(best_rows, np.where(np.isneginf(expected), -1, order))
    untouched = np.full((3, k), 9, np.float32)
    numba_kernels.merge_best(score, 0, untouched, best_rows, 1, 2)
    assert (untouched == 9).all()


@pytest.mark.parametrize("width", [1, 255, 256, 257, 600])
def test_inner_products_of_any_width(width):
    rng = np.random.default_rng(width)
    query, item = (rng.standard_normal((4, width)).astype(np.float32) for _ in range(2))
    item[:, 0] = [6e-8, -6e-8, 65504, 3e-5]  # float16's subnormal numbers and its greatest
    half = item.astype(np.float16)
    rows = np.arange(4)
    for gallery, exact in ((item, item), (half.view(np.uint16), half)):
        out = np.zeros(4, np.float32)
        dots.dots(query, gallery, rows, rows[::-1].copy(), out, 1, 4)
        expected = (query.astype(float) * exact[::-1].astype(float)).sum(1)
        assert_allclose(out[1:], expected[1:], rtol=1e-6, atol=1e-6)
        assert out[0] == 0
        assert_allclose(dots.dot(query[3], gallery[0]), expected[3], rtol=1e-12)
        assert_allclose(dots.quick_dot(query[3], gallery[0]), expected[3], rtol=1e-4, atol=1e-4)
    assert_allclose(dots._downscaled_float16(half[0].view(np.uint16)) * 2.0**112, half[0], rtol=0)


def test_a_quick_product_is_summed_in_chunks():
    """One chunk of 1 and 255 numbers too small to be added to it one by one: the other chunks' sum is not lost."""
    from numba import njit

    quick = njit(lambda a, b: dots.quick_dot(a, b))
    query = np.ones(3 * 256, np.float32)
    item = np.full(3 * 256, 2.0**-25, np.float32)
    item[0] = 1
    found = quick(query, item)
    assert found == pytest.approx(item.astype(float).sum(), abs=2.0**-15)
    assert found > 1 + 2.0**-17
    half = np.ones(600, np.float16)
    assert quick(np.full(600, 0.5, np.float32), half.view(np.uint16)) == 300


def test_rows_are_centred_and_rounded_to_bf16():
    import torch

    rng = np.random.default_rng(0)
    x, mean = rng.standard_normal((5, 33)).astype(np.float32), rng.standard_normal(33).astype(np.float32)
    bits = np.full((5, 40), 7, np.uint16)
    length, error, product = np.zeros(5, np.float32), np.zeros(5, np.float32), np.zeros(5)
    dots.centre_rows(x, mean, bits, length, error, product, 1, 4)
    centred = x - mean
    rounded = torch.from_numpy(centred).bfloat16()
    assert_array_equal(bits[1:4, :33], rounded.view(torch.uint16).numpy()[1:4])
    assert (bits[1:4, 33:] == 7).all()
    assert (bits[[0, 4]] == 7).all()
    assert_allclose(length[1:4], np.linalg.norm(centred[1:4], axis=1), rtol=1e-5)
    assert_allclose(error[1:4], np.linalg.norm(centred - rounded.float().numpy(), axis=1)[1:4], rtol=1e-4)
    assert_allclose(product[1:4], (centred.astype(float) @ mean.astype(float))[1:4], rtol=1e-9)
    assert not length[[0, 4]].any()


def test_ties_of_bf16_go_to_even():
    import torch

    x = np.array([[1 + 2.0**-8, 1 + 3 * 2.0**-8, -(1 + 2.0**-8), 1 + 2.0**-8 + 2.0**-20]], np.float32)
    bits = np.zeros((1, 4), np.uint16)
    one = np.zeros(1, np.float32)
    dots.centre_rows(x, np.zeros(4, np.float32), bits, one, one.copy(), np.zeros(1), 0, 1)
    assert torch.from_numpy(bits).view(torch.bfloat16).tolist() == [[1, 1 + 2.0**-6, -1, 1 + 2.0**-7]]


@pytest.mark.parametrize("bf16", [True, False])
def test_the_bounds_of_products_by_their_formulas(bf16, monkeypatch):
    """A looser bound costs time only, and a tighter one may be wrong: both are changes that must be noticed."""
    monkeypatch.setattr(products, "bf16_product_is_faster", lambda: bf16)
    rng = np.random.default_rng(0)
    width = 50
    query, item = (rng.standard_normal((n, width)).astype(np.float32) for n in (6, 9))
    mean, middle = rng.standard_normal(width).astype(np.float32), rng.standard_normal(6)
    made = products.Products(query, mean, middle)
    error = made.take(item)
    norm, exact = np.linalg.norm, np.float64
    q, g, m = (x.astype(exact) for x in (query - mean, item - mean, mean))
    q_length, g_length = norm(q, axis=1), norm(g, axis=1)
    assert_allclose(made.length, q_length, rtol=1e-5)
    steps = 256 + width / 256 + 3
    assert_allclose(made.slack, steps * 2.0**-24 * (q_length + norm(m)) * (g_length.max() + norm(m)), rtol=1e-5)

    def rounding(x):
        if not bf16:
            return np.zeros(len(x))
        bits = x.astype(np.float32).view(np.uint32).astype(np.int64)
        kept = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
        return norm(x - kept, axis=1)

    terms = np.abs(g @ m).max() + np.abs(q @ m + m @ m - middle)
    columns = 64  # 50 and 6, the next multiple of 32
    sums = columns * 2.0**-23 * (1.01**2 * q_length * g_length.max() + terms)
    product_error = rounding(q) * g_length.max() + 1.01 * q_length * rounding(g).max() + sums
    centring = 2.0**-22 * (1.01 * q_length + g_length.max() + norm(m))
    assert_allclose(error, 1.0001 * product_error + centring, rtol=1e-4)
    near = (made.near(slice(2, 5)).astype(np.uint32) << 16).view(np.float32)
    assert near.shape == (3, 9)
    off = np.abs(near - (query[2:5].astype(exact) @ item.astype(exact).T - middle[2:5, None]))
    assert (off <= error[2:5, None] + 2.0**-8 * np.abs(near)).all()
    assert products.NOTHING == 0xFF80


@pytest.mark.parametrize(("width", "columns"), [(25, 32), (26, 32), (27, 64), (58, 64), (59, 96)])
def test_rows_are_padded_to_a_multiple_of_32(width, columns, monkeypatch):
    monkeypatch.setattr(products, "bf16_product_is_faster", lambda: True)
    rows, *_ = products._centred(np.ones((3, width), np.float32), np.zeros(width, np.float32))
    assert rows.shape == (3, columns)
    assert (rows[:, :width] == 1).all()
    assert not rows[:, width:].any()


def test_a_term_is_three_columns_as_precise_as_float32():
    import torch

    x = np.array([1 / 3, -1234.56789, 1e-3])
    rows = torch.full((3, 6), 9.0, dtype=torch.bfloat16)
    products._write_term(x, rows, 2)
    assert_allclose(rows[:, 2:5].double().sum(1), x, rtol=2.0**-23)
    assert (rows[:, [0, 1, 5]] == 9).all()


def sets_of(*rows):
    width = max(map(len, rows)) + 1
    return np.array([[*row, *[-1] * (width - len(row))] for row in rows], np.int32)


def naive_mutual(near, k):
    return [[j for j in near[i][:k].tolist() if i in near[j][:k]] for i in range(len(near))]


@pytest.mark.parametrize("k", [1, 3, 6])
def test_mutual_neighbours_by_a_loop(k):
    rng = np.random.default_rng(0)
    near = np.array([np.r_[i, rng.permutation(np.delete(np.arange(12), i))] for i in range(12)], np.int32)
    out = np.full((12, k), 99, np.int32)
    reciprocal.mutual(near, out, 1, 12)
    for i, row in enumerate(naive_mutual(near, k)):
        assert out[i].tolist() == ([99] * k if i == 0 else row + [-1] * (k - len(row)))


def test_sets_are_expanded_by_those_that_share_more_than_two_thirds():
    full = sets_of([0, 1, 2, 3], [1, 0], [2], [3], [4, 5], [5], [6])
    half = sets_of([0, 1, 2], [1, 0, 5], [2, 0, 3, 6], [3], [4, 5, 6], [5, 4, 0, 6], [6])
    # Of image 0's members 1 shares exactly 2/3 and adds nothing, 2 shares 3/4 and adds 6. Of 4's, 4 itself shares 2/3.
    expected = [[0, 1, 2, 3, 6], [0, 1], [2], [3], [4, 5], [5], [6]]
    counts = np.zeros(7, np.int64)
    reciprocal.expand(full, half, counts, np.empty(0, np.int32), 0, 7)
    assert counts.tolist() == [len(row) for row in expected]
    start = np.concatenate([[0], np.cumsum(counts)])
    members = np.full(start[-1], -9, np.int32)
    reciprocal.expand(full, half, start, members, 0, 7)
    assert members.tolist() == [member for row in expected for member in row]


@pytest.mark.parametrize("first", [0, 7])
def test_sets_of_many_images_are_expanded_by_a_loop(first):
    rng = np.random.default_rng(first)
    full, half = (sets_of(*([i, *rng.permutation(np.delete(np.arange(40), i))[: rng.integers(0, most)].tolist()]
                            for i in range(40))) for most in (12, 5))  # fmt: skip
    expected = []
    for i in range(first, 40):
        members = full[i][full[i] >= 0].tolist()
        wider = set(members)
        for j in members:
            other = half[j][half[j] >= 0].tolist()
            if len(set(other) & set(members)) > 2 / 3 * len(other):
                wider |= set(other)
        expected.append(sorted(wider))
    counts = np.zeros(40, np.int64)
    reciprocal.expand(full, half, counts, np.empty(0, np.int32), first, 40)
    assert counts.tolist() == [0] * first + [len(row) for row in expected]
    start = np.concatenate([[0], np.cumsum(counts)])
    found = np.full(start[-1], -9, np.int32)
    reciprocal.expand(full, half, start, found, first, 40)
    assert found.tolist() == [member for row in expected for member in row]
    assert sum(map(len, expected)) > (full[first:] >= 0).sum()  # or nothing was added


def test_weights_of_members_by_their_formula():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5)).astype(np.float32)
    start, members = np.array([0, 2, 2, 5, 6]), np.array([1, 3, 0, 2, 3, 3], np.int32)
    largest, weights = np.float32([3, 1, 7, 2]), np.zeros(6, np.float32)
    reciprocal.weigh(x, largest, start, members, weights, 0, 4)
    for i in range(4):
        rows = members[start[i] : start[i + 1]]
        near = np.exp(-((x[i].astype(float) - x[rows]) ** 2).sum(1) / largest[i])
        assert_allclose(weights[start[i] : start[i + 1]], near / near.sum(), rtol=1e-5)


@pytest.mark.parametrize("float16", [False, True])
def test_reranked_rows_by_their_formula(float16):
    rng = np.random.default_rng(0)
    query_sets, gallery_sets = (rng.random((n, 8)).astype(np.float32) * (rng.random((n, 8)) < 0.5) for n in (3, 4))
    score = rng.uniform(-1, 1, (3, 4)).astype(np.float32)
    largest = np.float32([2, 3, 4])
    from scipy import sparse

    q, g = sparse.csr_array(query_sets), sparse.csc_array(gallery_sets)
    found = score.copy()
    rows, index = (reciprocal.SparseRows(x.indptr, x.indices, x.data) for x in (q, g))
    reciprocal.rerank_rows(found, rows, index, largest, 0.3, float16, 0, 2)
    overlap = np.minimum(query_sets[:, None], gallery_sets[None]).sum(2)
    expected = -(0.7 * (1 - overlap / (2 - overlap)) + 0.3 * (2 - 2 * score) / largest[:, None])
    assert_allclose(found[:2], expected[:2], atol=2e-3 if float16 else 1e-6)
    assert_array_equal(found[2], score[2])


def test_float16_rounding_is_numpys():
    x = np.float32(np.random.default_rng(0).uniform(1e-3, 1, 200))
    assert_array_equal([reciprocal._as_float16(v) for v in x], x.astype(np.float16).astype(np.float32))
