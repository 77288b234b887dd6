"""How many small faults no test notices: `python tests/mutation.py [COUNT] [SEED]`, a few minutes for ten.

Each fault changes one token of one line of the package (a comparison, an operator, a constant, a condition) in a copy
of it, and the tests that mirror the changed file's package run against that copy. A fault is survived where they pass.
"""

import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "resight"
SECONDS = 300  # of one run of tests; longer counts as noticed, since the fault does not end
SWAPS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not",
    ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.And: "or", ast.Or: "and",
}  # fmt: skip
SLOW = ["--ignore=tests/gallery/test_crashes.py", "--ignore=tests/gallery/test_kills.py"]
EVERYWHERE = ["tests/test_device.py", "tests/test_progress.py", "tests/test_files.py", "tests/test_public_names.py"]


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


def tests_of(path: Path) -> list[str]:
    """The tests that mirror a file's package, those that name the file first."""
    part = path.relative_to(PACKAGE).parts[0]
    folder = ROOT / "tests" / part
    if not folder.is_dir():
        return EVERYWHERE
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    first = [file for file in sorted(folder.glob("test_*.py")) if module in file.read_text()]
    return [*(str(file.relative_to(ROOT)) for file in first), f"tests/{part}"]


def survives(path: Path, line: int, new: str | None) -> bool:
    """Whether the tests pass with a line replaced; None leaves it as it is."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "src" / "resight"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        target = copy / path.relative_to(PACKAGE)
        lines = target.read_text().splitlines()
        if new is not None:
            lines[line - 1] = new
        target.write_text("\n".join(lines) + "\n")
        environment = {**os.environ, "PYTHONPATH": str(Path(folder) / "src"), "OMP_NUM_THREADS": "1"}
        environment |= {"NUMBA_CACHE_DIR": folder}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            *SLOW,
            *tests_of(path),
        ]
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]
    possible = [(path, *fault) for path in files for fault in faults(path)]
    chosen = rng.sample(possible, count)
    survived, total = Counter[str](), Counter[str]()

    def work(fault: tuple[Path, int, str, str]) -> None:
        path, line, old, new = fault
        part = path.relative_to(PACKAGE).parts[0]
        alive = survives(path, line, new)
        total[part] += 1
        survived[part] += alive
        word = "survived" if alive else "noticed "
        print(f"{word} {path.relative_to(ROOT)}:{line}\n    - {old.strip()}\n    + {new.strip()}", flush=True)

    parts = {(tests_of(path)[-1],): path for path, *_ in chosen}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for names, passes in zip(parts, pool.map(lambda path: survives(path, 1, None), parts.values()), strict=True):
            if not passes:
                sys.exit(f"the tests {' '.join(names)} fail without any fault")
        list(pool.map(work, chosen))
    for part in sorted(total):
        print(f"{part:12s}{survived[part]} of {total[part]} survived")
    print(f"{sum(survived.values())} of {count} faults were not noticed")


if __name__ == "__main__":
    main()
