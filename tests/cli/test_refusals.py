"""Lists of recipes and verbs, and commands that are refused: their one line on standard error."""

import json
import sys
from types import SimpleNamespace

import pytest
from cli_helpers import lines, refused

from resight.cli import VERBS, main
from resight.cli.refusal import _reason, one_sentence
from resight.errors import ConfigError


@pytest.mark.parametrize("verb", ["train", "lr-find", "summary"])
def test_a_verb_with_recipes_lists_them(capsys, verb):
    command = [verb, "--help"] if verb == "summary" else [verb]
    printed = lines(capsys, *command)
    assert printed[0] == f"usage: resight {verb} RECIPE [OPTIONS]"
    assert printed[1:-23] == [
        f"       resight {verb} --config CONFIG.json [OPTIONS]",
        *(["       resight train --resume RUN_FOLDER"] if verb == "train" else []), "",
        f"resight {verb} RECIPE --help lists the options with the recipe's values. The recipes:", "",
    ]  # fmt: skip
    own = next(line for line in printed if line.startswith("  own "))
    assert own == "  own                       Your own images: a table, or a folder for each identity. Held-out " + (
        "identities select the best checkpoint."
    )


def test_listings(capsys):
    printed = lines(capsys, "recipes", "list")
    says = "CUHK03-NP on two CPU cores in half an hour: ViT-S/14 (DINOv2) at 154x70, layer-wise learning rates."
    assert printed[3] == f"cuhk03                   {says}"
    document = json.loads("\n".join(lines(capsys, "recipes", "list", "--json")))
    assert [f"{name:25s}{words}" for name, words in document.items()] == printed
    for flags in (["list", "--help"], ["--help"], ["-h"]):
        with pytest.raises(SystemExit) as ended:
            main(["recipes", *flags])
        assert ended.value.code == 0
        assert "usage: resight recipes list" in capsys.readouterr().out
    for words in ([], ["lists"], ["--json"], ["--json", "list"]):
        assert refused(capsys, "recipes", *words) == "the command is: resight recipes list"


def test_json_is_indented_by_two(capsys):
    printed = lines(capsys, "recipes", "list", "--json")
    assert printed[:2] == ["{", '  "tiny": "A small three-modality TransReID (SIE(modality), JPM) that learns the ' + (
        'synthetic data set from random weights.",'
    )]  # fmt: skip


def test_what_is_refused_is_one_sentence(capsys):
    assert refused(capsys, "compare", "a") == (
        "Missing from resight compare: SECOND Another file or run folder. (required); resight compare --help lists the "
        "options"
    )
    assert refused(capsys, "compare", "a", "b", "--seed", "x") == (
        "Error parsing --seed: invalid literal for int() with base 10: 'x'; resight compare --help lists the options"
    )
    assert refused(capsys, "evaluate", "x", "--k1", 0) == (
        "evaluation: k1: Input should be greater than or equal to 1, not 0; resight evaluate --help lists the options"
    )


def test_a_name_is_printed_in_one_line(capsys, monkeypatch):
    says = f"there is no verb named 'a\\nb\\x1b'; known are: {', '.join(VERBS)}"
    assert refused(capsys, "a\nb\x1b") == says

    def fail(arguments):
        raise ConfigError("it is\n\x1b[1mé" + "\udce9")

    monkeypatch.setattr("resight.cli.recipes.run", fail)
    assert refused(capsys, "recipes", "list") == "it is\\n\\x1b[1mé\\udce9"


def test_errors_of_the_system(capsys, monkeypatch):
    def fail(error):
        def run(arguments):
            raise error

        monkeypatch.setattr("resight.cli.recipes.run", run)

    fail(OSError(28, "No space left on device", "a/b"))
    assert refused(capsys, "recipes", "list") == "a/b cannot be read or written: No space left on device"
    fail(OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        main(["recipes", "list"])
    fail(KeyboardInterrupt())
    assert main(["recipes", "list"]) == 130
    assert capsys.readouterr().err == "resight: interrupted; nothing was written\n"
    fail(KeyboardInterrupt("continue with: resight train --resume runs/a"))
    assert main(["recipes", "list"]) == 130
    assert capsys.readouterr().err == "resight: interrupted; continue with: resight train --resume runs/a\n"


def test_a_reader_that_has_ended_is_no_error(monkeypatch):
    def fail(arguments):
        raise BrokenPipeError

    monkeypatch.setattr("resight.cli.recipes.run", fail)
    replaced = []
    monkeypatch.setattr("resight.cli.os.dup2", lambda *a: replaced.append(a[1]))
    monkeypatch.setattr("resight.cli.os.open", lambda *a: 99)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(fileno=lambda: 77))
    assert main(["recipes", "list"]) == 0
    assert replaced == [77]


def test_the_words_are_those_of_the_process(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["resight", "--version"])
    assert main() == 0
    version = capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == version != ""
    for words in (["compare", ""], ["compare", "a", "--seed="]):
        assert refused(capsys, *words) == (
            "an argument of resight compare is empty: perhaps a variable of the shell is not set"
        )
    assert refused(capsys, "compare", "a\0") == (
        "the argument 'a\\x00' has a NUL character, which no name or value can have"
    )


@pytest.mark.parametrize(
    ("box", "sentence"),
    [
        (
            "╭─ Parsing error ──╮\n│ a is bad,        │\n"
            "│ and so is b.     │\n│ ──────────────── │\n"
            "│ Argument helptext: │\n│     --a INT      │\n│ ──────────────── │\n"
            "│ c is missing     │\n│ ──────────────── │\n"
            "│ For full helptext, run x --help │\n╰──────────────────╯\n",
            "a is bad, and so is b; c is missing",
        ),
        ("╭─ Parsing error ──╮\n╰──────────────────╯\n", "Parsing error"),
        ("+- Parsing error --+\n| a is bad.        |\n+------------------+\n", "a is bad"),
        ("a plain line", "a plain line"),
        ("", ""),
    ],
)
def test_a_box_becomes_a_sentence(box, sentence):
    assert _reason(SystemExit(2), box) == sentence


def report(text, status, arguments=()):
    """End the program as tyro does, after a report on standard error."""
    with one_sentence(arguments, "resight x"):
        print(text, file=sys.stderr)
        if status != "continue":
            raise SystemExit(status)


def test_what_ends_without_an_error_ends_the_program(capsys):
    for status in (0, None):
        with pytest.raises(SystemExit) as ended:
            report("", status)
        assert ended.value.code == status
    with pytest.raises(ConfigError, match=r"^a is bad; resight x --help lists the options$"):
        report("╭─ Error ──╮\n│ a is bad. │\n╰──────────╯", 2)
    assert capsys.readouterr().err == ""
    report("a warning", "continue")
    assert capsys.readouterr().err == "a warning\n"
    for flag in ("-h", "--help"):
        with pytest.raises(SystemExit):
            report("", 2, ["a", flag])
