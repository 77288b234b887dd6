"""Refused options: tyro reports them in a box of several lines, and the command line in one sentence."""

import io
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Final
from unittest.mock import patch

from pydantic import ValidationError

from resight.config.section import explain
from resight.errors import ConfigError

_SIDES: Final = "│| "  # of the box
_RULE: Final = "╭╮╰╯─+-"
_NOT_REPEATED: Final = ("For full helptext", "Argument helptext")  # parts of the box


@contextmanager
def one_sentence(arguments: Sequence[str], program: str) -> Generator[None]:
    """Raise what tyro reports of invalid options as a `ConfigError`; --help ends the program as usual.

    Args:
        arguments: that are parsed.
        program: the words before them, such as `resight train tiny`.
    """
    if {"-h", "--help"} & set(arguments):
        yield
        return
    report = io.StringIO()
    try:
        with redirect_stderr(report), patch.dict(os.environ, COLUMNS="100000"):  # no line is wrapped
            yield
    except SystemExit as ended:
        if not ended.code:
            raise
        raise ConfigError(f"{_reason(ended, report.getvalue())}; {program} --help lists the options") from ended
    except ValidationError as error:  # of options that are a part of others
        raise ConfigError(f"{_reason(error, '')}; {program} --help lists the options") from error
    sys.stderr.write(report.getvalue())


def _reason(ended: BaseException, box: str) -> str:
    error: BaseException | None = ended
    while error is not None:
        if isinstance(error, ValidationError):
            return f"{error.title.lower()}: {explain(error)}"
        error = error.__cause__ or error.__context__
    title, *lines = box.strip().splitlines() or [""]
    sections: list[list[str]] = [[]]
    for line in lines:
        content = line.strip(_SIDES)
        if content.strip(_RULE):
            sections[-1].append(content)
        elif content:
            sections.append([])
    texts = [" ".join(" ".join(section).split()) for section in sections]
    used = [text.removesuffix(".") for text in texts if text and not text.startswith(_NOT_REPEATED)]
    return "; ".join(used) or title.strip(_RULE + _SIDES)
