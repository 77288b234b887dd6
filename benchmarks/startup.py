"""How long a user waits for help: `python benchmarks/startup.py`. Medians of 9; fails over 0.3 s."""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "resight --help": ["-m", "resight.cli", "--help"],
    "import resight": ["-c", "import resight"],
    "python alone": ["-c", ""],
}


def seconds(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    medians = {name: statistics.median(seconds(a) for _ in range(9)) for name, a in COMMANDS.items()}
    for name, value in medians.items():
        print(f"{name:16s} {value:.3f} s  {value / medians['python alone']:.1f} x python alone")
    assert max(medians.values()) < 0.3


if __name__ == "__main__":
    main()
