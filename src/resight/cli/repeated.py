"""Options that are given several times: an option with a list takes the values of all of them, where argparse would
keep those of the last one alone."""

from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel


def join_repeated(kind: type, arguments: Sequence[str]) -> list[str]:
    """Write the values of an option with a list behind its first occurrence: `--id a --id b` becomes `--id a b`.

    Other options are left as they are: of those that are given several times, the last one counts.

    Args:
        kind: the options, a dataclass or a section of the configuration.
        arguments: of the command line.
    """
    lists = _list_options(kind)
    groups: list[list[str]] = [[]]  # an option and the words behind it
    first: dict[str, list[str]] = {}
    for word in arguments:
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not word.startswith("--"):
            groups[-1].append(word)
        elif not any(name == option or option.endswith(f".{name}") for option in lists):
            groups.append([word])
        elif name in first:
            groups.append(first[name])  # the words behind it go there
            groups[-1].extend([value] if equals else [])
        else:
            first[name] = [flag, value] if equals else [flag]
            groups.append(first[name])
    joined = list[str]()
    written = set[int]()
    for group in groups:
        if id(group) not in written:
            joined += group
            written.add(id(group))
    return joined


def _list_options(kind: Any, prefix: str = "") -> set[str]:
    """The fields whose values are lists of any length, with those of sections, such as `run.model.sie`."""
    names = set[str]()
    for name, hint in get_type_hints(kind).items():
        parts = [part for part in (hint, *get_args(hint)) if part is not type(None)]
        if any(get_origin(part) is tuple and Ellipsis in get_args(part) for part in parts):
            names.add(prefix + name)
        names.update(
            *(_list_options(part, f"{prefix}{name}.") for part in parts if is_dataclass(part) or _is_section(part))
        )
    return names


def _is_section(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)
