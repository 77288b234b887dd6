"""Fast approximate inner products with a proven bound on their error, as bf16 numbers, whose bits sort as they do."""

import numpy as np
import torch
from torch import Tensor

from resight.device import bf16_product_is_faster
from resight.retrieval.scores import in_threads

NOTHING = 0xFF80
"""The bits of -inf in bf16: below every score."""
_TERM_COLUMNS = 3  # of bf16, that together are as precise as float32


class Products:
    """Approximate scores minus a `middle` of each query, by one bf16 product for each block of the gallery.

    bf16 is precise near 0 and coarse elsewhere. Embeddings have a mean m that is often most of their length, so it is
    subtracted before anything is rounded: q.g - middle = (q - m).(g - m) + m.(g - m) + (q.m - middle). The last two
    terms are additional columns of the product, so that its values are near 0 where a query's matches are.

    Args:
        query: float32 [Q, D].
        mean: float32 [D], of the gallery or a sample of it.
        middle: float64 [Q], the score that each query's products are relative to.
    """

    def __init__(self, query: np.ndarray, mean: np.ndarray, middle: np.ndarray) -> None:
        width = query.shape[1]
        # Centre the queries: [Q, W], the D columns of q - m and room for the two terms.
        self._mean = mean
        self._query, self._length, self._rounding, mean_product = _centred(query, mean)
        # Write the query's term, q.m - middle = (q - m).m + m.m - middle, and ones for the item's term.
        query_term = mean_product + np.square(mean.astype(np.float64)).sum() - middle  # [Q]
        self._query_term_size = np.abs(query_term)
        _write_term(query_term, self._query, width)
        self._query[:, width + _TERM_COLUMNS : width + 2 * _TERM_COLUMNS] = 1
        self._query_length_bound = self._length + np.linalg.norm(mean)  # at least |q|
        self.slack = np.zeros(len(query), np.float32)
        """float32 [Q]: bound on the error of a sum of float32 products with an item of the block."""
        self._item = torch.empty(0)
        self._buffer = torch.empty(0)

    @property
    def length(self) -> np.ndarray:
        """float32 [Q]: the lengths of the queries minus the mean."""
        return self._length

    def take(self, item: np.ndarray) -> np.ndarray:
        """Load the next block of the gallery, [g, D], and set `slack`.

        By Cauchy and Schwarz |q.g - q'.g'| <= |q - q'| |g| + |q'| |g - g'|, and sums of n float32 products are off by
        at most n 2**-23 |q'| |g'|.

        Returns:
            float32 [Q]: bound on the error of the products before they are rounded to bf16.
        """
        from resight.retrieval.kernels import dots

        # Centre the items: [g, W], with ones for the query's term and the item's term m.(g - m).
        width = item.shape[1]
        self._item, length, rounding, mean_product = _centred(item.astype(np.float32, copy=False), self._mean)
        _write_term(mean_product, self._item, width + _TERM_COLUMNS)
        self._item[:, width : width + _TERM_COLUMNS] = 1

        # Bound the error of an exact score's float32 sum: slack [Q].
        longest = length.max()
        mean_length = np.linalg.norm(self._mean)
        steps = dots.CHUNK + width / dots.CHUNK + 3  # float32 roundings that a product can go through, at most
        slack = steps * 2.0**-24 * self._query_length_bound * (longest + mean_length)
        self.slack = slack.astype(np.float32)

        # Bound the error of the bf16 product: [Q].
        rounded_length = 1.01 * self._length  # at least |q'|
        sizes = rounded_length * (1.01 * longest) + np.abs(mean_product).max() + self._query_term_size
        sums = self._item.shape[1] * 2.0**-23 * sizes
        centring = 2.0**-22 * (rounded_length + longest + mean_length)  # float32's rounding of q - m and g - m
        return 1.0001 * (self._rounding * longest + rounded_length * rounding.max() + sums) + centring

    def near(self, part: slice) -> np.ndarray:  # words: ok
        """Return the products of some queries, rounded to bf16, as bits: uint16 [q, g].

        The array is a buffer that the next call overwrites.
        """
        query = self._query[part]
        shape = (len(query), len(self._item))
        size = shape[0] * shape[1]
        if len(self._buffer) < size:  # an array of numpy's, which requests huge pages from the system
            memory = np.empty(2 * size if query.dtype == torch.float32 else size, np.uint16)
            self._buffer = torch.from_numpy(memory).view(query.dtype)
        products = torch.mm(query, self._item.T, out=self._buffer[:size].view(shape))
        return products.bfloat16().view(torch.uint16).numpy()


def keys_in_doubt(  # words: ok
    score: np.ndarray, middle: np.ndarray, error: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest bf16 keys that certainly score above an exact score, and that may score as high.

    A bf16 number `a` stands for a score within 2**-8 |a| + error of a + middle.

    Args:
        score: float32 [P], exact scores.
        middle: float64 [P], what the approximate scores are relative to.
        error: float32 or float64 [P], bound on their error before the rounding to bf16.

    Returns:
        int64 [P] and [P].
    """
    # Bound the unrounded product of an item that scores the same: [P].
    bound = error.astype(np.float64) + 2.0**-22 * np.abs(score)  # the exact score is itself rounded, to float32
    high, low = score - middle + bound, score - middle - bound
    # Widen the bounds by the rounding to bf16: a - part |a| > high, and a + part |a| >= low.
    part = 2.0**-8
    above = np.where(high >= 0, high / (1 - part), high / (1 + part))
    below = np.where(low >= 0, low / (1 + part), low / (1 - part))
    # Round to float32, away from the score, and then to keys.
    above = np.nextafter(np.float32(above), np.float32(np.inf))
    below = np.nextafter(np.float32(below), -np.float32(np.inf))
    return _key_over(above), np.maximum(_key_from(below), 0x0080)  # 0x007F is -inf, junk


def _key_over(x: np.ndarray) -> np.ndarray:
    """Return the key of the lowest bf16 number over float32 `x`: int64."""
    truncated = x.view(np.uint32) & 0xFFFF != 0
    return _key(x) + np.where((x < 0) & truncated, 0, 1)  # truncation moves x towards 0


def _key_from(x: np.ndarray) -> np.ndarray:
    """Return the key of the lowest bf16 number that is not below float32 `x`: int64."""
    truncated = x.view(np.uint32) & 0xFFFF != 0
    return _key(x) + np.where((x > 0) & truncated, 1, 0)


def _key(x: np.ndarray) -> np.ndarray:
    """Return the order-preserving key of float32 `x` truncated to bf16: int64."""
    bits = (x.view(np.uint32) >> 16).astype(np.int64)
    return np.where(bits < 0x8000, bits + 0x8000, 0xFFFF - bits)


def _write_term(x: np.ndarray, rows: Tensor, column: int) -> None:
    """Write float64 [n] into three columns whose sum is as precise as float32."""
    rest = torch.from_numpy(x)
    for at in range(column, column + _TERM_COLUMNS):
        rows[:, at] = rest
        rest = rest - rows[:, at]


def _centred(x: np.ndarray, mean: np.ndarray) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """Subtract the mean from rows [n, D], and round to bf16 where bf16 products are faster.

    Returns:
        [n, W], bf16 or float32, with W a multiple of 32 and room for the six columns of the two terms; float32 [n],
        the lengths; float32 [n], the lengths of what was rounded away; float64 [n], the inner products with the mean.
    """
    from resight.retrieval.kernels import dots

    count, width = x.shape
    columns = width + 2 * _TERM_COLUMNS
    bits = np.empty((count, columns + -columns % 32), np.uint16)
    bits[:, width:] = 0
    length = np.empty(count, np.float32)
    rounding = np.empty(count, np.float32)
    mean_product = np.empty(count)
    in_threads(lambda a, b: dots.centre_rows(x, mean, bits, length, rounding, mean_product, a, b), count)
    if bf16_product_is_faster():
        return torch.from_numpy(bits).view(torch.bfloat16), length, rounding, mean_product
    exact = torch.zeros(bits.shape)
    exact[:, :width] = torch.from_numpy(x - mean)
    return exact, length, np.zeros_like(rounding), mean_product
