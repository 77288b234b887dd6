"""Inner products of two rows, compiled by numba, and the rounding of rows to bf16.

bf16 and float16 numbers are passed as their bits (uint16), because numba has neither type on a CPU.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types  # pyright: ignore[reportUnknownVariableType]
from numba.extending import overload  # pyright: ignore[reportUnknownVariableType]

Array = np.ndarray[Any, Any]
CHUNK = 256
"""Products that are summed in float32 before the sums of the chunks are added."""


def dot(query: Array, item: Array) -> float:
    """Return the inner product of float32 [D] with float32 [D], or with the bits of float16 [D].

    The sum is in float64 and always in the same order.
    """
    return float(query.astype(np.float64) @ _values(item))


def quick_dot(query: Array, item: Array) -> float:
    """Return the inner product of the same arguments as `dot`, summed in float32."""
    return float(query @ _values(item).astype(np.float32))


def _values(item: Array) -> Array:
    return item.view(np.float16) if item.dtype == np.uint16 else item


@njit(cache=True, nogil=True)
def _downscaled_float16(item: Array) -> Array:
    """Return the float16 numbers of these bits as float32 [D], subnormal numbers too, times 2 ** -112."""
    wide = np.empty(len(item), np.uint32)
    for d in range(len(item)):
        bits = np.uint32(item[d])
        wide[d] = ((bits & np.uint32(0x8000)) << np.uint32(16)) | ((bits & np.uint32(0x7FFF)) << np.uint32(13))
    return wide.view(np.float32)


@overload(dot, jit_options={"fastmath": {"reassoc", "contract"}})
def _compiled_dot(query: Array, item: Array) -> Callable[[Array, Array], float]:
    def of_float32(query: Array, item: Array) -> float:
        total = 0.0
        for d in range(len(item)):
            total += np.float64(query[d]) * np.float64(item[d])
        return total

    def of_float16(query: Array, item: Array) -> float:
        total = 0.0
        values = _downscaled_float16(item)
        for d in range(len(item)):
            total += np.float64(query[d]) * np.float64(values[d])
        return total * 2.0**112

    return of_float16 if item.dtype == types.uint16 else of_float32


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _chunk_dot(query: Array, item: Array, scale: Any) -> Any:
    total = np.float32(0)
    for d in range(len(item)):
        total += query[d] * (item[d] * scale)
    return total


@overload(quick_dot)
def _compiled_quick_dot(query: Array, item: Array) -> Callable[[Array, Array], Any]:
    """Sum by chunks: the rounding error is then bounded by a chunk's, whatever order the compiler sums it in."""

    def of_float32(query: Array, item: Array) -> Any:
        total = np.float32(0)
        for d in range(0, len(item), CHUNK):
            total += _chunk_dot(query[d : d + CHUNK], item[d : d + CHUNK], np.float32(1))
        return total

    def of_float16(query: Array, item: Array) -> Any:
        total = np.float32(0)
        values = _downscaled_float16(item)
        for d in range(0, len(item), CHUNK):
            total += _chunk_dot(query[d : d + CHUNK], values[d : d + CHUNK], np.float32(2.0**112))
        return total

    return of_float16 if item.dtype == types.uint16 else of_float32


@njit(cache=True, nogil=True)
def dots(
    query: Array, gallery: Array, query_rows: Array, gallery_rows: Array, out: Array, first: int, last: int
) -> None:
    """Write the exact scores of the pairs `first` to `last - 1` into `out`, float32 [pairs]."""
    for n in range(first, last):
        out[n] = np.float32(dot(query[query_rows[n]], gallery[gallery_rows[n]]))


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def centre_rows(
    x: Array, mean: Array, bits: Array, length: Array, error_length: Array, mean_product: Array, first: int, last: int
) -> None:
    """Subtract a mean from rows, round them to bf16 and measure the rounding error.

    Args:
        x: float32 [n, D].
        mean: float32 [D].
        bits: uint16 [n, >= D], output: x - mean as bf16's bits, rounded to nearest even.
        length: float32 [n], output: |x - mean|.
        error_length: float32 [n], output: the length of what was rounded away.
        mean_product: float64 [n], output: the inner product of x - mean with the mean.
        first: the first row of this task.
        last: the row after the last one of this task.
    """
    centred = np.empty(x.shape[1], np.float32)
    rounded = np.empty(x.shape[1], np.float32)
    for i in range(first, last):
        # Subtract the mean: centred [D].
        squares = np.float32(0)
        inner = 0.0
        error_squares = np.float32(0)
        for d in range(len(centred)):
            centred[d] = x[i, d] - mean[d]
            squares += centred[d] * centred[d]
            inner += np.float64(centred[d]) * np.float64(mean[d])
        # Round to bf16: the upper half of float32's bits, to nearest even.
        centred_bits = centred.view(np.uint32)
        rounded_bits = rounded.view(np.uint32)
        for d in range(len(centred)):
            raised = centred_bits[d] + np.uint32(0x7FFF) + ((centred_bits[d] >> np.uint32(16)) & np.uint32(1))
            bits[i, d] = raised >> np.uint32(16)
            rounded_bits[d] = raised & np.uint32(0xFFFF0000)
        # Measure what was rounded away.
        for d in range(len(centred)):
            error_squares += (centred[d] - rounded[d]) * (centred[d] - rounded[d])
        length[i] = np.sqrt(squares)
        error_length[i] = np.sqrt(error_squares)
        mean_product[i] = inner
