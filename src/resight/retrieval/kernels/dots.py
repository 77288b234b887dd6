"""Inner products of two rows, compiled by numba; and rows rounded to bf16.

bf16 numbers come as their bits (uint16), float16 ones too: numba has neither type on a CPU.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types  # pyright: ignore[reportUnknownVariableType]
from numba.extending import overload  # pyright: ignore[reportUnknownVariableType]

Array = np.ndarray[Any, Any]
PIECE = 256  # products that are added up in float32


def dot(query: Array, item: Array) -> float:
    """Inner product of float32 [D] with float32 [D], or with the bits of float16, in float64; always in one order."""
    return float(query.astype(np.float64) @ _values(item))


def quick_dot(query: Array, item: Array) -> float:
    """The same in float32."""
    return float(query @ _values(item).astype(np.float32))


def _values(item: Array) -> Array:
    return item.view(np.float16) if item.dtype == np.uint16 else item


@njit(cache=True, nogil=True)
def _small(item: Array) -> Array:
    """The bits of float16 as float32 numbers, subnormal ones too, times 2 ** -112."""
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
        total, small = 0.0, _small(item)
        for d in range(len(item)):
            total += np.float64(query[d]) * np.float64(small[d])
        return total * 2.0**112

    return of_float16 if item.dtype == types.uint16 else of_float32


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _piece(query: Array, item: Array, scale: Any) -> Any:
    total = np.float32(0)
    for d in range(len(item)):
        total += query[d] * (item[d] * scale)
    return total


@overload(quick_dot)
def _compiled_quick_dot(query: Array, item: Array) -> Callable[[Array, Array], Any]:
    """In pieces, so that the rounding of the sum is that of a piece, whatever order the compiler adds it up in."""

    def of_float32(query: Array, item: Array) -> Any:
        total = np.float32(0)
        for d in range(0, len(item), PIECE):
            total += _piece(query[d : d + PIECE], item[d : d + PIECE], np.float32(1))
        return total

    def of_float16(query: Array, item: Array) -> Any:
        total, small = np.float32(0), _small(item)
        for d in range(0, len(item), PIECE):
            total += _piece(query[d : d + PIECE], small[d : d + PIECE], np.float32(2.0**112))
        return total

    return of_float16 if item.dtype == types.uint16 else of_float32


@njit(cache=True, nogil=True)
def dots(query: Array, gallery: Array, asked: Array, searched: Array, out: Array, first: int, last: int) -> None:
    """Scores of the pairs `first` to `last`: float32 [n]."""
    for n in range(first, last):
        out[n] = np.float32(dot(query[asked[n]], gallery[searched[n]]))


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def centre_rows(
    x: Array, mean: Array, bits: Array, length: Array, lost: Array, shift: Array, first: int, last: int
) -> None:
    """Rows less a mean, rounded to bf16, and what is lost by it.

    Args:
        x: float32 [n, D].
        mean: float32 [D].
        bits: uint16 [n, >= D], takes x - mean as bf16's bits, rounded to nearest even.
        length: float32 [n], takes |x - mean|.
        lost: float32 [n], takes the length of what was rounded away.
        shift: float64 [n], takes the product of x - mean with the mean.
        first: the first row worked on.
        last: the row to stop at.
    """
    off, near = np.empty(x.shape[1], np.float32), np.empty(x.shape[1], np.float32)
    for i in range(first, last):
        squares, inner, away = np.float32(0), 0.0, np.float32(0)
        for d in range(len(off)):
            off[d] = x[i, d] - mean[d]
            squares += off[d] * off[d]
            inner += np.float64(off[d]) * np.float64(mean[d])
        exact, rounded = off.view(np.uint32), near.view(np.uint32)
        for d in range(len(off)):
            whole = exact[d] + np.uint32(0x7FFF) + ((exact[d] >> np.uint32(16)) & np.uint32(1))
            bits[i, d] = whole >> np.uint32(16)
            rounded[d] = whole & np.uint32(0xFFFF0000)
        for d in range(len(off)):
            away += (off[d] - near[d]) * (off[d] - near[d])
        length[i], lost[i], shift[i] = np.sqrt(squares), np.sqrt(away), inner
