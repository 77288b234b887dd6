"""What commands print, and the tables in it."""

import re

from resight.cli import main


def lines(capsys, *command):
    """What a command prints on standard output."""
    capsys.readouterr()
    assert main([str(word) for word in command]) == 0
    return capsys.readouterr().out.splitlines()


def refused(capsys, *command):
    """The one line that refuses a command."""
    capsys.readouterr()
    assert main([str(word) for word in command]) == 2
    return capsys.readouterr().err.removeprefix("resight: ").rstrip("\n")


def tables(printed):
    """The tables in some lines: title, and the cells of each row."""
    found = []
    for before, line in zip(["", *printed], printed, strict=False):
        if line.startswith("┏"):
            found.append((before.strip(), []))
        elif line.startswith(("┃", "│")):
            found[-1][1].append([cell.strip() for cell in re.split("[┃│]", line)[1:-1]])
    return found


def texts(printed):
    """The lines that belong to no table."""
    inside = {n + k for n, line in enumerate(printed) if line.startswith("┏") for k in (-1, 0)}
    return [line for n, line in enumerate(printed) if n not in inside and not line.startswith(tuple("┃│┡├└"))]
