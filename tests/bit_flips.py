"""Corrupt files, for tests that check whether that is noticed."""

import os
import random
from pathlib import Path

FLIPS = int(os.environ.get("RESIGHT_FLIPS", "25"))
"""Number of bits that a test flips, one at a time."""


def flip_bit(file: Path, bit: int) -> None:
    """Flip one bit of a file, counted from its start."""
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def truncate(file: Path, rng: random.Random) -> None:
    """Cut a file short at a random byte; two bytes at least are lost, since a line break at the end is no loss."""
    os.truncate(file, rng.randrange(file.stat().st_size - 1))
