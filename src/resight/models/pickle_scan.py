"""Check the pickles of a `torch.save` file before torch reads them: their number of objects is limited, and they are
named where torch.save did not write them.
"""

import pickletools
import zipfile
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

from resight.errors import CheckpointError

_LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C  # the first of the pickles that torch.save wrote before version 1.6
_LEGACY_PICKLES: Final = 5
_MAX_PICKLE_BYTES: Final = 16 * 2**20
_MAX_STEPS: Final = 2_000_000
_MAX_TUPLE: Final = 1_000  # objects in a tuple, at any depth
_MAX_REPEATED: Final = 10_000_000  # objects that the pickle refers to again
_MEMO_WRITES: Final = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_MEMO_READS: Final = ("GET", "BINGET", "LONG_BINGET")


def check_pickles(path: Path) -> None:
    """Check that a file has the structure of torch.save, and that what its pickles describe is limited.

    Raises:
        CheckpointError: it was written by another program, or describes too many objects.
        Exception: of any type, where the file is corrupt.
    """
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            _check_zip(path)
            return
        file.seek(0)
        first = [argument for _, argument, _ in islice(pickletools.genops(file), 3)]
        if _LEGACY_MAGIC not in first:
            raise CheckpointError(
                f"{path} is a pickle that torch.save did not write, so it is not read, because a pickle could run "
                "code; save the state dict with torch.save"
            )
        for _ in range(_LEGACY_PICKLES - 1):
            _scan(file, path)


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename.partition("/")[2] for entry in entries]
        if "constants.pkl" in names:
            raise CheckpointError(f"{path} is a TorchScript archive (torch.jit.save); save its state dict instead")
        if names.count("data.pkl") != 1:
            raise CheckpointError(
                f"{path} is corrupt or no checkpoint: it is a zip archive that torch.save did not write"
            )
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise CheckpointError(
                f"{path} has compressed parts, which torch.save does not write; save it with torch.save"
            )
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise CheckpointError(f"{path} is corrupt: its parts overlap")
        with archive.open(entries[names.index("data.pkl")]) as file:
            _scan(file, path)


def _scan(file: IO[bytes], path: Path) -> None:
    """Follow one pickle with the number of objects in place of each object; it is not built."""
    start = file.tell()
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[Any, int] = {}
    repeated = 0
    for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name == "MARK":
            marks.append(len(stack))
        elif opcode.name in _MEMO_WRITES:
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif opcode.name in _MEMO_READS:
            stack.append(memo[argument])
            repeated += memo[argument]
        else:
            items = _taken(opcode, stack, marks)
            size = 1 + sum(items) if opcode.name.startswith("TUPLE") else 1
            if size > _MAX_TUPLE:
                raise CheckpointError(
                    f"{path} describes a tuple of more than {_MAX_TUPLE:,} objects, so it is not read"
                )
            stack += [size] * len(opcode.stack_after)
        if step > _MAX_STEPS or repeated > _MAX_REPEATED or file.tell() - start > _MAX_PICKLE_BYTES:
            raise CheckpointError(f"{path} describes too many objects for a file of weights, so it is not read")


def _taken(opcode: pickletools.OpcodeInfo, stack: list[int], marks: list[int]) -> list[int]:
    """Remove from the stack what an operation takes, and return it."""
    taken = len(opcode.stack_before)
    start = len(stack) - taken
    if pickletools.markobject in opcode.stack_before:
        start = marks.pop() - opcode.stack_before.index(pickletools.markobject)
    items = stack[start:]
    del stack[start:]
    return items
