"""Options that are given several times on the command line."""

from dataclasses import dataclass

import pytest

from resight.cli.gallery.options import Search
from resight.cli.parsing import parse, parse_action
from resight.cli.repeated import join_repeated
from resight.cli.run_options import RunOptions, parse_run
from resight.errors import ConfigError


@pytest.mark.parametrize(("arguments", "joined"), [
    ("", ""),
    ("search g --k 3", "search g --k 3"),
    ("g --image rgb=a --image tir=b", "g --image rgb=a tir=b"),
    ("g --image=rgb=a --k 3 --image tir=b nir=c --json", "g --image rgb=a tir=b nir=c --k 3 --json"),
    ("g --id a b --camera c --id d --camera=e", "g --id a b d --camera c e"),
    ("g --query-camera a --query-camera b", "g --query-camera a --query-camera b"),
    ("g --k 3 --k 4", "g --k 3 --k 4"),
])  # fmt: skip
def test_values_of_lists_are_joined(arguments, joined):
    assert join_repeated(Search, arguments.split()) == joined.split()


def parsed(words):
    return parse_action({"search": Search}, words.split(), "resight gallery")


def test_a_list_has_the_values_of_all_its_options():
    options = parsed("search g --image rgb=a --image tir=b --id x --id=y")
    assert (options.image, options.id) == (("rgb=a", "tir=b"), ("x", "y"))
    options = parsed("search g --k 3 --metadata a=1 --metadata b=2 --k 4")
    assert (options.metadata, options.k) == (("a=1", "b=2"), 4)
    with pytest.raises(ConfigError, match="--imagee"):
        parsed("search g --imagee a --imagee b")


def test_lists_in_the_sections_of_a_run():
    run = parse_run(
        ["tiny", "--model.sie", "camera", "--seed", "1", "--model.sie", "view"], "resight train", RunOptions
    ).run
    assert (run.model.sie, run.seed) == (("camera", "view"), 1)


def test_pairs_and_optional_lists():
    @dataclass
    class Options:
        size: tuple[int, int] = (1, 2)
        names: tuple[str, ...] | None = None

    words = "--size 3 4 --size 5 6 --names a --names b"
    assert parse(Options, words.split(), "x") == Options((5, 6), ("a", "b"))
