"""Inner products, fast and nearly right, with a proven bound on their error; as bf16 numbers, whose bits sort."""

import numpy as np
import torch
from torch import Tensor

from resight.device import bf16_product_is_faster
from resight.retrieval.scores import in_threads

NOTHING = 0xFF80
"""The bits of -inf in bf16: below every score."""


class Products:
    """How far scores are above a `middle` of each query's, approximately: one bf16 product for a stretch.

    bf16 is fine near 0 and coarse elsewhere. Embeddings have a mean m that is often most of their length; it is taken
    out before anything is rounded: q.g - middle = (q - m).(g - m) + m.(g - m) + (q.m - middle). The last two terms ride
    along in columns of their own, so that what comes out is near 0 where a query's matches are.
    """

    def __init__(self, query: np.ndarray, mean: np.ndarray, middle: np.ndarray) -> None:
        self._mean = mean
        self._query, self._length, self._lost, inner = _centred(query, mean)
        rest = inner + np.square(mean.astype(np.float64)).sum() - middle
        self._most = np.abs(rest)
        _write(rest, self._query, query.shape[1])
        self._query[:, query.shape[1] + 3 : query.shape[1] + 6] = 1
        self._whole = self._length + np.linalg.norm(mean)  # |q|, at most
        self.slack = np.zeros(len(query), np.float32)
        """float32 [Q]: what a sum of float32 products with an item of the stretch may be off by."""
        self._item = torch.empty(0)
        self._near = torch.empty(0)

    @property
    def length(self) -> np.ndarray:
        """float32 [Q]: the lengths of the queries less the mean."""
        return self._length

    def take(self, item: np.ndarray) -> np.ndarray:
        """Goes on to a stretch [g, D]. Returns float32 [Q]: what the products may be off by before they are rounded.

        By Cauchy and Schwarz |q.g - q'.g'| <= |q - q'| |g| + |q'| |g - g'|, and sums of n float32 products are off by
        at most n 2**-23 |q'| |g'|.
        """
        from resight.retrieval.kernels import dots

        width = item.shape[1]
        self._item, length, lost, inner = _centred(item.astype(np.float32, copy=False), self._mean)
        _write(inner, self._item, width + 3)
        self._item[:, width : width + 3] = 1
        longest, near = length.max(), 1.01 * self._length  # |q'|, at most
        sums = self._item.shape[1] * 2.0**-23 * (near * (1.01 * longest) + np.abs(inner).max() + self._most)
        steps = dots.PIECE + width / dots.PIECE + 3  # float32 roundings that a product can go through, at most
        self.slack = (steps * 2.0**-24 * self._whole * (longest + np.linalg.norm(self._mean))).astype(np.float32)
        taken_out = 2.0**-22 * (near + longest + np.linalg.norm(self._mean))  # float32's rounding of q - m and g - m
        return 1.0001 * (self._lost * longest + near * lost.max() + sums) + taken_out

    def near(self, part: slice) -> np.ndarray:
        """uint16 [q, g]: the bits of the products, rounded to bf16, in a buffer that the next call writes over."""
        query = self._query[part]
        shape = (len(query), len(self._item))
        if len(self._near) < shape[0] * shape[1]:  # numpy's, which asks for huge pages
            held = np.empty(2 * shape[0] * shape[1] if query.dtype == torch.float32 else shape[0] * shape[1], np.uint16)
            self._near = torch.from_numpy(held).view(query.dtype)
        near = torch.mm(query, self._item.T, out=self._near[: shape[0] * shape[1]].view(shape))
        return near.bfloat16().view(torch.uint16).numpy()


def keys_in_doubt(score: np.ndarray, middle: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For exact scores and the error of approximate ones, the keys of bf16 that surely score above, and that may.

    A bf16 number `a` stands for a score within 2**-8 |a| + error of a + middle.
    """
    off = error.astype(np.float64) + 2.0**-22 * np.abs(score)  # the exact score is itself rounded, to float32
    high, low = score - middle + off, score - middle - off
    part = 2.0**-8
    above = np.where(high >= 0, high / (1 - part), high / (1 + part))  # a - part |a| > high
    below = np.where(low >= 0, low / (1 + part), low / (1 - part))  # a + part |a| >= low
    up, down = np.nextafter(np.float32(above), np.float32(np.inf)), np.nextafter(np.float32(below), -np.float32(np.inf))
    return _key_over(up), np.maximum(_key_from(down), 0x0080)  # 0x007F is -inf, junk


def _key_over(x: np.ndarray) -> np.ndarray:
    """int64: the key of the lowest bf16 number over float32 `x`."""
    cut = x.view(np.uint32) & 0xFFFF != 0
    return _key(x) + np.where((x < 0) & cut, 0, 1)  # bits cut off move x towards 0


def _key_from(x: np.ndarray) -> np.ndarray:
    """int64: the key of the lowest bf16 number that is not below float32 `x`."""
    cut = x.view(np.uint32) & 0xFFFF != 0
    return _key(x) + np.where((x > 0) & cut, 1, 0)


def _key(x: np.ndarray) -> np.ndarray:
    """int64: the order-preserving key of the bf16 number that the bits of float32 `x` begin with."""
    bits = (x.view(np.uint32) >> 16).astype(np.int64)
    return np.where(bits < 0x8000, bits + 0x8000, 0xFFFF - bits)


def _write(x: np.ndarray, rows: Tensor, column: int) -> None:
    """Puts float64 [n] into three columns, which together are as good as float32."""
    rest = torch.from_numpy(x)
    for at in range(column, column + 3):
        rows[:, at] = rest
        rest = rest - rows[:, at]


def _centred(x: np.ndarray, mean: np.ndarray) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """Rows less a mean as the products take them, [n, W], in bf16 where that is faster, with room for six columns.

    Also float32 [n] their lengths, float32 [n] the lengths of what was rounded away, and float64 [n] their products
    with the mean.
    """
    from resight.retrieval.kernels import dots

    count, width = x.shape
    bits = np.empty((count, width + 6 + -(width + 6) % 32), np.uint16)
    bits[:, width:] = 0
    length, lost, shift = np.empty(count, np.float32), np.empty(count, np.float32), np.empty(count)
    in_threads(lambda a, b: dots.centre_rows(x, mean, bits, length, lost, shift, a, b), count)
    if bf16_product_is_faster():
        return torch.from_numpy(bits).view(torch.bfloat16), length, lost, shift
    exact = torch.zeros(bits.shape)
    exact[:, :width] = torch.from_numpy(x - mean)
    return exact, length, np.zeros_like(lost), shift
