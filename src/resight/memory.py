"""Memory that is asked for again and again."""

import ctypes
import platform
from functools import cache

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # of malloc.h


@cache
def keep_memory() -> bool:
    """Has glibc keep the memory of large arrays instead of giving it back to the system each time.

    A step of training asks for the same gigabytes as the step before. Given back, they come as fresh pages that the
    system zeroes one by one: a tenth of a step and more. The process's peak is as before; what it once had, it holds.

    Returns:
        whether that was done; False where the C library is another one.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_MAX, 0)) and bool(libc.mallopt(_TRIM_THRESHOLD, -1))
