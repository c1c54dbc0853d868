"""The project file: what may stand in it, and where errors say something is wrong."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rumpbundle
from rumpbundle.cli import main
from rumpbundle.errors import InputError, UsageError
from rumpbundle.project import model, reading
from rumpbundle.project.entry import entries
from rumpbundle.project.places import KeyOffsets

DOCS = Path(rumpbundle.__file__).parents[1] / "docs"


def parsed(text: str) -> reading.Project:
    return reading.parse(text.encode(), "rumpbundle.toml")


def test_defaults_are_shared_and_tables_of_them_are_merged():
    project = parsed("""
        "$schema" = "https://example.org/project.schema.json"
        [defaults]
        formats = ["iso"]
        size = "64M"
        env = { A = "1", B = "2" }
        [defaults.boot]
        memory = "64M"
        [image.web]
        app = "build/web.bin"
        env = { B = "3" }
        boot = { publish = ["8080:80"] }
        [image.db]
        app = "db.bin"
        size = 0
        """)
    web, db = (entry.image for entry in entries(project))
    assert (web.formats, web.size, web.env) == (("iso",), "64M", {"A": "1", "B": "3"})
    assert (web.boot.memory, web.boot.publish) == ("64M", ("8080:80",))
    assert (db.size, db.env) == (0, {"A": "1", "B": "2"})


HEAD = "[image.a]\napp = 'x'\n"
KINDS = "expected a number or a string"
NAMES = "expected a name of at most 64 letters, digits, '_' and '-'"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[image.a]\napp = \n", "invalid value (line 2, column 7)", None),
        (HEAD + "format = ['iso']\n", "image.a.format: unknown key (line 3, column 1)", "did you mean formats?"),
        (HEAD + "size = true\n", f"image.a.size: {KINDS}, got a boolean (line 3, column 1)", None),
        (
            HEAD + "data = [\n 'a:/',\n 7]\n",
            "image.a.data[1]: expected a string, got a number (line 5, column 2)",
            None,
        ),
        (
            HEAD + "firmware = 'efi'\n",
            "image.a.firmware: expected bios, both, uefi; got 'efi' (line 3, column 1)",
            "did you mean uefi?",
        ),
        (HEAD + "[image.a.boot]\nports = 1\n", "image.a.boot.ports: unknown key (line 4, column 1)", None),
        ("[defaults]\nsize = []\n" + HEAD, f"defaults.size: {KINDS}, got an array (line 2, column 1)", None),
        ("[image.a]\nsize = 1\n", "image.a: the key 'app' is missing (line 1, column 1)", None),
        ("[image.'a.b']\napp = 'x'\n", f"image.a.b: {NAMES} (line 1, column 1)", None),
        ("[images.a]\n", "images: unknown key (line 1, column 1)", "did you mean image?"),
        ("", "describes no image (line 1, column 1)", None),
        ("image = 3", "describes no image (line 1, column 1)", None),
        ("[image]\na = 3", "image.a: expected a table (line 2, column 1)", None),
        (HEAD + "env = { A = 1 }\n", "image.a.env: expected a string, got a number (line 3, column 1)", None),
    ],
)
def test_an_error_names_the_place(text, message, hint):
    with pytest.raises(InputError) as raised:
        parsed(text)
    assert str(raised.value) == f"rumpbundle.toml: {message}"
    if hint:
        assert raised.value.hint == hint


def test_a_directory_above_that_is_closed_to_us_has_none(tmp_path, monkeypatch):
    inner = tmp_path / "closed" / "open"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    (tmp_path / "closed").chmod(0)
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        with pytest.raises(UsageError, match="here or in a directory above"):
            reading.find()
    finally:
        os.seteuid(user)
        (tmp_path / "closed").chmod(0o755)


def test_it_is_found_from_below_as_git_finds_its_own(tmp_path, monkeypatch):
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    with pytest.raises(UsageError, match=r"no rumpbundle\.toml here or in a directory above"):
        reading.find()
    (tmp_path / "rumpbundle.toml").write_text("[image.a]\napp = 'x'\n")
    assert reading.find() == os.path.join("..", "..", "rumpbundle.toml")
    (below / "rumpbundle.toml").write_text("[image.b]\napp = 'x'\n")
    assert reading.find() == "rumpbundle.toml"


def test_one_of_somebody_else_is_used_only_where_one_stands(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    (tmp_path / "rumpbundle.toml").write_text("[image.a]\napp = 'x'\n")
    owner = (tmp_path / "rumpbundle.toml").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    monkeypatch.setattr(reading, "_TRUSTED", ())
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(UsageError, match="belongs to another user"):
        reading.find()
    monkeypatch.chdir(tmp_path)
    assert reading.find() == "rumpbundle.toml"


def test_the_published_schema_is_the_one_that_is_read(capsys):
    assert main(["init", "--schema"]) == 0
    assert capsys.readouterr().out == model.schema_text()
    for words in ([], ["app.bin", "--schema"]):
        assert main(["init", *words]) == 2
    assert (DOCS / "project.schema.json").read_text("utf-8") == model.schema_text()
    schema = json.loads(model.schema_text())
    assert "app" in schema["$defs"]["Image"]["properties"]
    assert "$schema" in schema["$defs"]["File"]["properties"]


# -- where things stand ----------------------------------------------------------------------------------

_KEYS = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True), st.text("a.]['\"#= é\\", min_size=1, max_size=5)
)
_LEAVES = st.one_of(
    st.integers(-5, 5), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=12)
)
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3), max_leaves=8
)


def quoted(text: str) -> str:
    """Return *text* as one of TOML's basic strings."""
    return (
        '"'
        + "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
        + '"'
    )


class Writer:
    """Writes a document in TOML, in forms that *draw* chooses, and notes the offset of all it writes."""

    def __init__(self, draw) -> None:
        self.draw = draw
        self.text = ""
        self.places: dict[tuple, int] = {}

    def noise(self) -> None:
        self.text += self.draw(st.sampled_from(["", " ", "\n", "# [x] = 'y'\n", '\n\t# """\n']))

    def key(self, name: str) -> None:
        self.text += name if name.isascii() and name.replace("_", "").replace("-", "").isalnum() else quoted(name)

    def value(self, path: tuple, value) -> None:
        if isinstance(value, list):
            self.text += "["
            for index, inner in enumerate(value):
                self.noise()
                self.places[(*path, index)] = len(self.text)
                self.value((*path, index), inner)
                self.text += ","
            self.noise()
            self.text += "]"
        elif isinstance(value, dict):
            self.text += "{ "
            for number, (name, inner) in enumerate(value.items()):
                self.text += ", " if number else ""
                self.places[(*path, name)] = len(self.text)
                self.key(name)
                self.text += " = "
                self.value((*path, name), inner)
            self.text += " }"
        elif isinstance(value, str):
            plain = value.isascii() and value.isprintable()
            form = self.draw(st.sampled_from(["basic", "many", "literal", "literals"]))
            if form == "many":
                self.text += f'"""\n[a]\nb = 1 {quoted(value)[1:-1]}"""'
            elif plain and form == "literal" and "'" not in value:
                self.text += f"'{value}'"
            elif plain and form == "literals" and "'" not in value:
                self.text += f"'''\n[a]\n{value}'''"
            else:
                self.text += quoted(value)
        else:
            self.text += str(value).lower() if isinstance(value, bool) else repr(value)

    def table(self, path: tuple, values: dict) -> None:
        tables = {name for name, inner in values.items() if isinstance(inner, dict) and self.draw(st.booleans())}
        for name, inner in values.items():
            if name not in tables:
                self.text += self.draw(st.sampled_from(["", "\n", "# c = [\n", "  "]))
                self.places[(*path, name)] = len(self.text)
                self.key(name)
                self.text += self.draw(st.sampled_from(["=", " = "]))
                self.value((*path, name), inner)
                self.text += self.draw(st.sampled_from(["\n", " # '\n"]))
        for name in tables:
            self.places[(*path, name)] = len(self.text)
            self.text += "["
            for number, part in enumerate((*path, name)):
                self.text += " . " if number else ""
                self.key(part)
            self.text += "]\n"
            self.table((*path, name), values[name])


@given(st.dictionaries(_KEYS, _VALUES, max_size=4), st.data())
def test_everything_is_found_where_it_was_written(values, data):
    writer = Writer(data.draw)
    writer.table((), values)
    tomllib.loads(writer.text)
    found = KeyOffsets(writer.text)
    for path, offset in writer.places.items():
        assert path in found, (path, writer.text)
        line, column = found.line_of(path)
        assert (line, column) == (writer.text.count("\n", 0, offset) + 1, offset - writer.text.rfind("\n", 0, offset))


def test_what_is_not_written_is_told_where_it_would_stand():
    found = KeyOffsets("a = 1\n[b]\nc.d = 2\n[[e]]\nf = 1\n[[e]]\nf = 2\n[e.g]\nh = 07:32:00.5\n")
    assert found.line_of(("b", "c", "d")) == (3, 3)
    assert found.line_of(("b", "x")) == (2, 1)
    assert (found.line_of(("e", 0, "f")), found.line_of(("e", 1, "f"))) == ((5, 1), (7, 1))
    assert found.line_of(("e", 1, "g", "h")) == (9, 1)
    assert found.line_of(("z",)) == (1, 1)


def test_a_byte_order_mark_is_no_statement():
    text = "[image.a]\napp = 'x'\nfoo = 1\n"
    with pytest.raises(InputError, match=r"image.a.foo: unknown key \(line 3, column 1\)"):
        reading.parse(b"\xef\xbb\xbf" + text.encode(), "rumpbundle.toml")
