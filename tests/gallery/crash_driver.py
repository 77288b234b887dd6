"""Run by test_crashes.py under crash_shim.c: operations on a small gallery that are ended at every call, or recorded.

Each operation runs in a child process of its own, over a copy of the same gallery; so does each check afterwards.
"""

import ctypes
import json
import os
import random
import shutil
import signal
import struct
import sys
from dataclasses import replace
from pathlib import Path

from gallery_engines import INFO, records

from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
from resight.gallery.maintenance import verify

SHIM = ctypes.CDLL(os.environ["LD_PRELOAD"].split()[0])
SECRET = "secret-name"
STORED = [replace(r, identity=SECRET) if n % 5 == 0 else r for n, r in enumerate(records(40))]
NEW = records(25, seed=1, first=100)
HIDDEN = [r for r in STORED if r.identity == SECRET]

OPERATIONS = {
    "add": lambda e: e.add(NEW),
    "replace": lambda e: e.add([replace(NEW[n], id=STORED[n].id, identity="new") for n in range(9)]),
    "assign": lambda e: e.assign([r.id for r in STORED[:7]], "zed"),
    "merge": lambda e: e.assign([], "zed", of="ann"),
    "undo": lambda e: e.undo(),
    "remove": lambda e: e.remove([], SECRET),
    "ingest": lambda e: [e.add(NEW[n : n + 5]) for n in range(0, 25, 5)],
}


def opened(folder: Path, indexed: bool) -> SQLiteEngine:
    return SQLiteEngine(folder, indexed, 0 if indexed else 10**9)


def state(engine: SQLiteEngine) -> str:
    rows = [[r.id, r.identity, r.vector.tobytes().hex(), sorted(r.metadata.items())] for r in engine.scan()]
    return json.dumps([rows, [[e.identity, sorted(e.before.items())] for e in engine.assignments()]])


def in_child(work) -> int:
    """The status of a child process that runs `work`."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        work()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def expected_states(template: Path, place: Path, name: str, indexed: bool) -> list[str]:
    """The states that an operation may leave: the one before, and the one after (and those in between for ingest)."""
    file = place.with_name("states.json")

    def work() -> None:
        shutil.copytree(template, place)
        engine = opened(place, indexed)
        states = [state(engine)]
        if name == "ingest":
            for n in range(0, 25, 5):
                engine.add(NEW[n : n + 5])
                states.append(state(engine))
        else:
            OPERATIONS[name](engine)
            states.append(state(engine))
        engine.close()
        file.write_text(json.dumps(states))

    assert in_child(work) == 0
    shutil.rmtree(place)
    return json.loads(file.read_text())


def check(folder: Path, indexed: bool, allowed: list[str]) -> None:
    """Whether a gallery opens, has a state that it may have, and leaves nothing of what was removed."""
    engine = opened(folder, indexed)
    current = state(engine)
    assert current in allowed, "another state than before or after the operation"
    faults = verify(engine)
    assert not faults, faults
    ids = {r.id for r in engine.scan()}
    for record in (STORED[1], STORED[17]):
        if record.id in ids:
            assert engine.search(record.vector[None], 1)[0], "a search finds nothing"
    engine.close()
    if HIDDEN[0].id not in ids:
        traces(folder)


def traces(folder: Path) -> None:
    """No file has a removed name, id, image, or vector."""
    for file in folder.rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        assert SECRET.encode() not in data, f"{file.name} has the name"
        for record in HIDDEN:
            assert record.vector.tobytes() not in data, f"{file.name} has a vector"
            assert f'"{record.id}"'.encode() not in data, f"{file.name} has an id"


def kills(template: Path, name: str, indexed: bool, step: int) -> int:
    """End an operation before each `step`-th call that changes a file; returns how many times."""
    place = template.with_name("killed")
    allowed = expected_states(template, place, name, indexed)
    number, count = 1, 0
    while True:
        shutil.copytree(template, place)
        acknowledged = template.with_name("acknowledged")
        acknowledged.unlink(missing_ok=True)

        def work(number: int = number, acknowledged: Path = acknowledged) -> None:
            SHIM.crash_watch(str(place).encode(), number, b"")
            engine = opened(place, indexed)
            OPERATIONS[name](engine)
            acknowledged.touch()
            engine.close()

        status = in_child(work)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0, status
        left = allowed[-1:] if acknowledged.exists() else allowed
        assert in_child(lambda left=left: check(place, indexed, left)) == 0, f"{name}: ended before call {number}"
        shutil.rmtree(place)
        if not killed:
            return count
        count += 1
        number += step


def read_journal(file: Path) -> list[tuple[str, str, str, int, bytes]]:
    data, place, events = file.read_bytes(), 0, []
    while place < len(data):
        kind, a, b, c, offset = struct.unpack_from("<cIIIq", data, place)
        place += 21
        texts = [data[place : place + a].decode(), data[place + a : place + a + b].decode()]
        events.append((kind.decode(), *texts, offset, data[place + a + b : place + a + b + c]))
        place += a + b + c
    return events


def synced(events: list, n: int) -> bool:
    """Whether what event number n did to a file has been synced by the end of the events."""
    kind, path, other = events[n][:3]
    target = str(Path(other or path).parent) if kind in "ru" else path
    return any(kind == "s" and later == target for kind, later, *_ in events[n + 1 :])


def replay(template: Path, place: Path, events: list, keeps) -> None:
    """The folder after a power cut: synced events are kept, others as `keeps` says."""
    shutil.copytree(template, place)
    for n, (kind, path, other, offset, data) in enumerate(events):
        file = Path(path)
        if kind == "s" or file.name.endswith("-shm") or not (synced(events, n) or keeps()):
            continue
        if kind == "u":
            file.unlink(missing_ok=True)
        elif kind == "r":
            if file.exists():
                os.replace(file, other)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            with file.open("r+b") as opened_file:
                opened_file.seek(offset)
                opened_file.truncate() if kind == "t" and offset <= file.stat().st_size else opened_file.write(data)
                if kind == "t":
                    opened_file.truncate(offset)


def power_cuts(template: Path, name: str, step: int) -> int:
    """Cut the power after each `step`-th call: the writes not synced by then are lost, or some are; returns how often.

    Only without an index: its files are mapped, so that its writes are not calls.
    """
    place, journal = template.with_name("cut"), template.with_name("journal")
    allowed = expected_states(template, place, name, False)
    marks = template.with_name("marks")

    def work() -> None:
        SHIM.crash_watch(str(place).encode(), 0, str(journal).encode())
        engine = opened(place, False)
        OPERATIONS[name](engine)
        marks.write_text(str(SHIM.crash_calls()))
        engine.close()

    shutil.copytree(template, place)
    assert in_child(work) == 0
    shutil.rmtree(place)
    events, acknowledged = read_journal(journal), int(marks.read_text())
    rng, count = random.Random(0), 0
    for end in range(0, len(events) + 1, step):
        for keeps in (lambda: False, lambda: rng.random() < 0.5):
            replay(template, place, events[:end], keeps)
            left = allowed[-1:] if end >= acknowledged else allowed
            assert in_child(lambda left=left: check(place, False, left)) == 0, f"{name}: power cut after call {end}"
            shutil.rmtree(place)
            count += 1
    return count


def main() -> None:
    folder, step, kinds = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(",")
    names = sys.argv[4].split(",") if len(sys.argv) > 4 else list(OPERATIONS)
    counts: dict[str, int] = {}
    for kind in kinds:
        indexed = kind == "index"
        template = folder / kind / "gallery"
        template.parent.mkdir(parents=True)

        def prepare(template: Path = template, indexed: bool = indexed) -> None:
            SQLiteEngine.create(template, INFO)
            engine = opened(template, indexed)
            engine.add(STORED)
            engine.assign([HIDDEN[0].id, STORED[1].id], "first")
            engine.assign([HIDDEN[0].id], SECRET)
            engine.close()

        assert in_child(prepare) == 0
        for name in names:
            if kind == "power":
                counts[f"{name}, power cut"] = power_cuts(template, name, step)
            else:
                counts[f"{name}, {kind}"] = kills(template, name, indexed, step)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
