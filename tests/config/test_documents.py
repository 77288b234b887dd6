"""Files with a format number and a SHA-256, and YAML that anyone may have written: what is read and what is refused."""

import hashlib
import json

import pytest
from pydantic import ValidationError

from resight.config.document import Document, require_format, require_intact
from resight.config.yaml_text import parse_yaml
from resight.errors import CheckpointError, ConfigError


class Note(Document):
    """A document with one field."""

    text: str
    value: float = 0.5


def digest(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "note.json"
    path.write_text(Note(text="é").model_dump_json())
    return path


def read(path):
    return Note.read(path, "a note", "write it again")


def refused(path, text=None):
    """The sentence that refuses the file, after its path."""
    if text is not None:
        path.write_text(text)
    with pytest.raises(CheckpointError) as error:
        read(path)
    assert str(error.value).startswith(str(path))
    return str(error.value).removeprefix(f"{path} ")


def test_a_document_states_its_format_and_digest(file):
    content = json.loads(file.read_text())
    assert content == {"format": 2, "text": "é", "value": 0.5, "sha256": content["sha256"]}
    stated = content.pop("sha256")
    assert stated == digest(content)
    assert (Note.FORMAT, read(file)) == (2, Note(text="é"))
    file.write_text(json.dumps({"sha256": stated, **dict(reversed(content.items()))}, indent=4))
    assert read(file) == Note(text="é")  # however it is laid out


def test_another_document_is_refused(file):
    content = json.loads(file.read_text())
    plain = {name: value for name, value in content.items() if name != "sha256"}
    edited = "is corrupt or was edited, its SHA-256 is not the one in it: restore it from a copy, or write it again"
    assert refused(file, json.dumps(content | {"text": "e"})) == edited
    assert refused(file, json.dumps(content | {"more": 1})) == edited
    assert refused(file, json.dumps(plain)) == (
        "has no sha256, so whether it is intact cannot be checked: write it again"
    )
    assert refused(file, "[]") == "does not describe a note: write it again"
    assert refused(file, "{").startswith("is corrupt, it is no JSON (")
    assert refused(file, "[" * 100_000).startswith("is corrupt, it is no JSON (")
    old = plain | {"format": 1}
    reads = "and this version of resight reads format 2: write it again"
    assert refused(file, json.dumps(old | {"sha256": digest(old)})) == f"has format 1, {reads}"
    extra = plain | {"more": 1}
    assert refused(file, json.dumps(extra | {"sha256": digest(extra)})) == (
        "does not describe a note: more: Extra inputs are not permitted, not 1"
    )
    with pytest.raises(FileNotFoundError):
        read(file.with_name("none"))


def test_a_digest_is_checked_wherever_a_document_is_validated(file):
    content = json.loads(file.read_text())
    assert Note.model_validate(content) == Note(text="é")
    assert Note.model_validate({"text": "a"}).text == "a"  # made in the program: nothing to check
    with pytest.raises(ValidationError, match="the content does not have its sha256"):
        Note.model_validate(content | {"text": "e"})
    note = Note(text="a")
    assert Note.model_validate(note) is note


@pytest.mark.parametrize(
    ("number", "has"),
    [
        (None, "has no format number"), (3, "has format 3"), (1, "has format 1"), (2.0, "has format 2.0"),
        ("2", 'has format "2"'), (True, "has format true"), ("n" * 60, f'has format "{"n" * 59}'),
    ],
)  # fmt: skip
def test_a_format_is_the_same_whole_number(tmp_path, number, has):
    require_format(tmp_path, 2, 2, "write it again")
    with pytest.raises(CheckpointError) as error:
        require_format(tmp_path, number, 2, "write it again")
    assert str(error.value) == f"{tmp_path} {has}, and this version of resight reads format 2: write it again"


def test_files_are_intact(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b").write_bytes(b"b")
    stated = {"a": hashlib.sha256(b"a").hexdigest(), "in/b": hashlib.sha256(b"b").hexdigest()}
    require_intact(tmp_path, stated, "card.json", "write it again")
    (tmp_path / "in" / "b").write_bytes(b"c")
    with pytest.raises(CheckpointError) as error:
        require_intact(tmp_path, stated, "card.json", "write it again")
    assert str(error.value) == (
        f"{tmp_path / 'in' / 'b'} is corrupt, its SHA-256 is not the one in card.json: restore it from a copy, or "
        "write it again"
    )
    (tmp_path / "in" / "b").unlink()
    with pytest.raises(CheckpointError) as error:
        require_intact(tmp_path, stated, "card.json", "write it again")
    assert str(error.value) == (
        f"{tmp_path / 'in' / 'b'} cannot be read (No such file or directory): restore it from a copy, or write it again"
    )


def nested(depth):
    """A scalar at a depth, where the outermost node has depth 1."""
    return "[" * (depth - 1) + "1" + "]" * (depth - 1)


def test_yaml_is_nested_to_a_limited_depth():
    assert parse_yaml("a: [1, {b: null}]\nc: true", "x") == {"a": [1, {"b": None}], "c": True}
    value = parse_yaml(nested(50), "x")
    for _ in range(49):
        (value,) = value
    assert value == 1
    with pytest.raises(ConfigError, match=r"^x cannot be read as YAML: it is nested more than 50 levels deep$"):
        parse_yaml(nested(51), "x")
    assert parse_yaml(f"[{', '.join(['[1]'] * 200)}]", "x") == [[1]] * 200  # wide is not deep


def test_yaml_is_plain():
    for text, says in (
        ("a: &x 1\nb: *x", "aliases (*name) are not allowed"),
        ("!!python/object:os.system", "could not"),
    ):
        with pytest.raises(ConfigError) as error:
            parse_yaml(text, "the option A")
        assert str(error.value).startswith(f"the option A cannot be read as YAML: {says}")
    with pytest.raises(ConfigError) as error:
        parse_yaml(f"!{'n' * 400} 1", "x")
    assert len(str(error.value)) == len("x cannot be read as YAML: ") + 300
    assert "\n" not in str(error.value)


def test_an_error_without_words_is_named_by_its_kind(monkeypatch):
    def fail(*arguments):
        raise IndexError

    monkeypatch.setattr("resight.config.yaml_text.yaml.load", fail)
    with pytest.raises(ConfigError, match=r"^x cannot be read as YAML: IndexError$"):
        parse_yaml("", "x")
