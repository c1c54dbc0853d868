"""Rows: one image each, and what may not be in them."""

from __future__ import annotations

import pytest

from rumpbundle.errors import InputError
from rumpbundle.project import reading, rows
from rumpbundle.project.entry import entries


def described(tmp_path, table: str, text: str, name: str = "fleet.csv"):
    (tmp_path / name).write_text(table)
    whole = f"[image.node]\napp = 'app.bin'\nrows = '{name}'\nformats = ['iso']\n{text}"
    return list(entries(reading.parse(whole.encode(), str(tmp_path / "rumpbundle.toml"))))


def test_a_column_stands_in_any_string_and_two_braces_for_one(tmp_path):
    found = described(
        tmp_path,
        'id,address,note\nn1,10.0.0.1,"a, ""b""\nc"\n\nn2,10.0.0.2,{id}\n',
        """
        config = "cfg/{id}.json"
        cmdline = "{{{note}}} {{id}}"
        env = { ADDRESS = "{address}" }
        net = ["vioif0,inet,static,{address}/24"]
        boot = { publish = ["{id}:80"] }
        """,
    )
    one, two = (entry.image for entry in found)
    assert (one.config, one.cmdline) == ("cfg/n1.json", '{a, "b"\nc} {id}')
    assert (one.env, one.net) == ({"ADDRESS": "10.0.0.1"}, ("vioif0,inet,static,10.0.0.1/24",))
    assert (two.cmdline, two.boot.publish) == ("{{id}} {id}", ("n2:80",))
    assert [(entry.label, entry.row.number, entry.row.line) for entry in found] == [
        ("node-n1", 1, 2),
        ("node-n2", 2, 5),
    ]


def test_json_lines_are_rows_too(tmp_path):
    found = described(
        tmp_path, '{"id": 7, "size": "64M"}\n\n{"size": "1G", "id": 8.5}\n', "size = '{size}'", "f.jsonl"
    )
    assert [(entry.label, entry.image.size, entry.row.line) for entry in found] == [
        ("node-7", "64M", 1),
        ("node-8.5", "1G", 3),
    ]


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("id\na/b\n", "", "row 1 (line 2): 'a/b' cannot stand in a file's name"),
        ("id\n..\n", "", "row 1 (line 2): '..' cannot stand in a file's name"),
        ("id\na\n\nb\na\n", "", "row 3 (line 5): 'a' is the key of line 2 too"),
        ("id,id\n1,2\n", "", "line 1: 'id' stands twice"),
        ("id,\n1,2\n", "", "line 1: '' is no name for a column"),
        ("id,b\n1\n", "", "line 2: expected 2 values as the head has, got 1"),
        ('id\n"a\n', "", "line 2: unexpected end of data"),
        ("", "", "is empty"),
        ("id,ip\na,b\n", "cmdline = '{i}'", "row 1 (line 2): there is no column 'i', which the project file names"),
        ("id\na\n", "cmdline = 'x{'", "row 1 (line 2): the project file has a { without its } in 'x{'"),
        ("id,fw\na,uefi\nb,efi\n", "firmware = '{fw}'", "row 2 (line 3): image.node.firmware: expected bios,"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_row(tmp_path, table, text, message):
    with pytest.raises(InputError) as raised:
        [entry.image for entry in described(tmp_path, table, text)]
    assert str(raised.value).startswith(f"{tmp_path / 'fleet.csv'}: {message}")


@pytest.mark.parametrize("line", ["[1]", "{}", "x", '{"id": null}', '{"id": true}', '{"id": "a"}\n{"is": "b"}'])
def test_lines_that_are_no_rows(tmp_path, line):
    (tmp_path / "f.jsonl").write_text(line)
    with pytest.raises(InputError, match=r"line \d: "):
        list(rows.read(str(tmp_path / "f.jsonl")))


def test_two_images_do_not_share_a_name(tmp_path):
    (tmp_path / "fleet.csv").write_text("id\nb\n")
    text = "[image.a]\napp = 'x'\nrows = 'fleet.csv'\n[image.a-b]\napp = 'x'\n"
    with pytest.raises(InputError, match="two images are called a-b"):
        list(entries(reading.parse(text.encode(), str(tmp_path / "rumpbundle.toml"))))


def test_half_a_character_is_no_text(tmp_path):
    table = tmp_path / "t.jsonl"
    table.write_text('{"id": "a", "x": "\\ud800"}\n')
    with pytest.raises(InputError, match="line 1: x: holds half of a character"):
        list(rows.read(str(table)))


def test_an_array_is_no_lines(tmp_path):
    table = tmp_path / "t.json"
    table.write_text('[\n {"id": "a"}\n]\n')
    with pytest.raises(InputError, match="line 1: is no JSON") as raised:
        list(rows.read(str(table)))
    assert raised.value.hint == "write an object a line, with no [ ] around them"
