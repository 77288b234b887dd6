"""How many small faults no test notices, in two steps that run by hand:

`python tests/mutation.py map` runs the whole suite once and records which test runs which line, and for how long;
`python tests/mutation.py [COUNT] [SEED]` then makes COUNT random faults, a few minutes for ten.

Each fault changes one token of one line of the package (a comparison, an operator, a constant, a condition) in a copy
of it. The tests that run this line are then run against the copy, the fastest first; a fault survives where all pass.
"""

import ast
import json
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from coverage import CoverageData

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "resight"
MAP = ROOT / ".mutation"  # what the step `map` records
SECONDS = 150  # of tests chosen for one fault, as they took without a fault: the slowest are left out beyond that
SWAPS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not",
    ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.And: "or", ast.Or: "and",
}  # fmt: skip
Fault = tuple[Path, int, str, str]  # file, line from 1, old text, new text


def faults(path: Path) -> list[tuple[int, str, str]]:
    """Line, old text and new text of every fault that can be made in a file."""
    text = path.read_text()
    lines, made = text.splitlines(), list[tuple[int, str, str]]()
    for node in ast.walk(ast.parse(text)):
        line = getattr(node, "lineno", 0)
        if not line or line != getattr(node, "end_lineno", 0):
            continue
        source = lines[line - 1]
        new = None
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            new = f"{ast.unparse(node.left)} {SWAPS[type(node.ops[0])]} {ast.unparse(node.comparators[0])}"
        elif isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
            new = f"{ast.unparse(node.left)} {SWAPS[type(node.op)]} {ast.unparse(node.right)}"
        elif isinstance(node, ast.BoolOp) and len(node.values) == 2:
            left, right = map(ast.unparse, node.values)
            new = f"({left}) {SWAPS[type(node.op)]} ({right})"
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            new = repr(node.value + 1)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            new = ast.unparse(node.operand)
        if new is not None and not source.lstrip().startswith(("def ", "class ", "from ", "import ", "@")):
            made.append((line, source, source[: node.col_offset] + new + source[node.end_col_offset :]))
    return made


def record() -> None:
    """Run the suite with coverage and write the lines that each test runs, and its seconds, to `.mutation`."""
    shutil.rmtree(MAP, ignore_errors=True)
    MAP.mkdir()
    (MAP / "coveragerc").write_text(f"[run]\nsource = {PACKAGE}\ndata_file = {MAP / 'coverage'}\n")
    options = ["--cov", f"--cov-config={MAP / 'coveragerc'}", "--cov-context=test", "--cov-report="]
    report = MAP / "junit.xml"
    subprocess.run([sys.executable, "-m", "pytest", "-n", "2", *options, f"--junitxml={report}"], cwd=ROOT, check=True)
    seconds = {
        f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}": float(case.get("time", "0"))
        for case in ElementTree.parse(report).iter("testcase")
    }
    (MAP / "seconds.json").write_text(json.dumps(seconds))


class Tests:
    """Which tests run a line, as `record` wrote it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = json.loads((MAP / "seconds.json").read_text())
        self.data = CoverageData(str(MAP / "coverage"))
        self.data.read()

    def of_line(self, path: Path, line: int) -> list[str]:
        """Tests to run for a line, the fastest first; where none runs it (a constant, machine code), its mirror."""
        by_line = {at: names for at, names in self.data.contexts_by_lineno(str(path)).items() if any(names)}
        # Of a statement over several lines, only some are recorded.
        recorded = next((at for at in range(line, max(line - 6, 0), -1) if at in by_line), None)
        contexts = [context.partition("|") for context in by_line.get(recorded or 0, []) if context]
        run = {name for name, _, phase in contexts if phase == "run"} & self.seconds.keys()
        # The tests of a file share what one of them sets up.
        files = {name.partition("::")[0] for name, _, phase in contexts if phase != "run"}
        shared = {name for name in self.seconds if name.partition("::")[0] in files} - run
        chosen = list[str]()
        left = float(SECONDS)
        for test in [*sorted(run, key=self.seconds.__getitem__), *sorted(shared, key=self.seconds.__getitem__)]:
            left -= self.seconds[test]
            if left < 0 and chosen:
                break
            chosen.append(test)
        return chosen or self.mirror(path)

    def mirror(self, path: Path) -> list[str]:
        """The files of tests that name a module, or the folder of tests of its package."""
        part = path.relative_to(PACKAGE).parts[0]
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        word = re.compile(rf"\b{re.escape(module)}\b|\bfrom resight\S* import .*\b{path.stem}\b")
        files = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if word.search(file.read_text())]
        folder = (
            [f"tests/{part}"] if (ROOT / "tests" / part).is_dir() else ["tests/test_device.py", "tests/test_files.py"]
        )
        return [str(file.relative_to(ROOT)) for file in files] or folder


class Copy:
    """A copy of the package in which one fault at a time is made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(PACKAGE, folder / "resight", ignore=shutil.ignore_patterns("__pycache__"))

    def first_failure(self, fault: Fault | None, tests: list[str], seconds: float) -> str | None:
        """The first of the tests that fails, with the fault or (None) without one; None where all pass."""
        if fault is None:
            return self._run(tests, seconds, fresh=False)
        path, line, _, new = fault
        target = self.folder / "resight" / path.relative_to(PACKAGE)
        text = target.read_text()
        lines = text.splitlines()
        lines[line - 1] = new
        target.write_text("\n".join(lines) + "\n")
        try:
            # numba does not see a change in a function that a cached one calls.
            return self._run(tests, seconds, fresh="kernels" in path.parts)
        finally:
            target.write_text(text)

    def _run(self, tests: list[str], seconds: float, fresh: bool) -> str | None:
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        with tempfile.TemporaryDirectory() as cache:
            environment["NUMBA_CACHE_DIR"] = cache if fresh else str(self.folder / "numba")
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
            try:
                done = subprocess.run(
                    command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds
                )
            except subprocess.TimeoutExpired:
                return "no end"
        if done.returncode == 0:
            return None
        failed = re.search(r"^(?:FAILED|ERROR) (\S+\.py(?:::.+?)?)(?: - |$)", done.stdout, re.MULTILINE)
        return failed.group(1) if failed else "no test could be run"


class Faults:
    """Tries faults, and runs each test that failed once more without the fault: only then it has noticed it."""

    def __init__(self, tests: Tests) -> None:
        self.tests = tests
        self.sound, self.unsound = set[str](), set[str]()

    def noticed_by(self, copy: Copy, fault: Fault) -> str | None:
        """The test that notices a fault, or None."""
        names = self.tests.of_line(*fault[:2])
        while names := [name for name in names if name not in self.unsound]:
            seconds = 4 * sum(self.tests.seconds.get(name, 60.0) for name in names) + 240
            failed = copy.first_failure(fault, names, seconds)
            if failed is None or not failed.startswith("tests/") or failed in self.sound:
                return failed
            if copy.first_failure(None, [failed], 600) is None:
                self.sound.add(failed)
                return failed
            print(f"{failed} fails without a fault too", flush=True)
            self.unsound.add(failed)
        return None


def main() -> None:
    if sys.argv[1:2] == ["map"]:
        return record()
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]
    possible: list[Fault] = [(path, *fault) for path in files for fault in faults(path)]
    chosen = rng.sample(possible, count)
    faulty = Faults(Tests())
    survived, total = Counter[str](), Counter[str]()
    copies = queue.Queue[Copy]()

    def work(fault: Fault) -> None:
        path, line, old, new = fault
        copy = copies.get()
        by = faulty.noticed_by(copy, fault)
        copies.put(copy)
        part = path.relative_to(PACKAGE).parts[0]
        total[part] += 1
        survived[part] += by is None
        print(f"{'SURVIVED' if by is None else 'noticed'} {path.relative_to(ROOT)}:{line} ({by})", flush=True)
        print(f"    - {old.strip()}\n    + {new.strip()}", flush=True)

    workers = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        for number in range(workers):
            copies.put(Copy(Path(folder) / str(number)))
        list(pool.map(work, chosen))
    for part in sorted(total):
        print(f"{part:12s}{survived[part]} of {total[part]} survived")
    print(f"{sum(survived.values())} of {count} faults were not noticed")


if __name__ == "__main__":
    main()
