"""The configuration: what is read, what is refused, and where the error points."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rumpbundle import config
from rumpbundle.config import Block, Config, Network, Program, jsontext
from rumpbundle.errors import ConfigError, RumpbundleError, UsageError

CONTRACT = """{
  "hostname": "web1",
  "env": {"LANG": "C", "PORT": "80"},
  "rc": [{"bin": "httpd", "argv": ["-d", "/data"]}, {"bin": "cron", "argv": [], "runmode": "&"}],
  "net": [{"if": "vioif0", "type": "inet", "method": "dhcp"}],
  "blk": [{"source": "dev", "path": "/dev/ld0a", "fstype": "blk", "mountpoint": "/data"}]
}"""
"""The example of the command line contract."""


def parse(text: str) -> Config:
    return config.parse(text.encode(), "cfg.json")


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value


def test_the_contract_example_is_read():
    assert parse(CONTRACT) == Config(
        hostname="web1",
        env={"LANG": "C", "PORT": "80"},
        rc=(Program(bin="httpd", argv=("-d", "/data")), Program(bin="cron", runmode="&")),
        net=(Network(interface="vioif0", type="inet", method="dhcp"),),
        blk=(Block(source="dev", path="/dev/ld0a", mountpoint="/data"),),
    )


def test_what_the_old_tool_wrote_is_read():
    """Its shell appended a comma to every line, the opening brace included."""
    text = """ {,
\t"env": "LANG=C",
\t"env": "PORT=80",
\t"env": "LANG=fi=x",
\t"net" :  {,
\t\t"if":\t\t"xenif0",
\t\t"cloner":\t"true",
\t\t"type":\t\t"inet",
\t\t"method":\t"static",
\t\t"addr":\t\t"10.0.0.2",
\t\t"mask":\t\t"24",
\t\t"gw":\t\t"10.0.0.1",
\t},
\t"blk" :  {, "source":\t"etfs", "path": "xvda", "fstype": "blk", "mountpoint": "/data", },
\t"blk" :  {, "source":\t"dev", "path": "virtual", "fstype": "kernfs", "mountpoint": "/kern", },
\t"cmdline": "httpd -d /data",
},
"""
    assert parse(text) == Config(
        cmdline="httpd -d /data",
        env={"LANG": "fi=x", "PORT": "80"},
        net=(
            Network(
                interface="xenif0", type="inet", method="static", addr="10.0.0.2", mask=24, gw="10.0.0.1", cloner=True
            ),
        ),
        blk=(
            Block(source="etfs", path="xvda", mountpoint="/data"),
            Block(source="dev", path="virtual", fstype="kernfs", mountpoint="/kern"),
        ),
    )


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('{"hostnme": "x"}', "$.hostnme: unknown key (line 1, column 13)", "did you mean hostname?"),
        ('{"zzzz": 1}', "$.zzzz: unknown key", "known keys: cmdline, rc, env, hostname, net, blk"),
        (
            '{"net": [{"if": "v", "type": "inet", "methd": "dhcp"}]}',
            "$.net[0].methd: unknown key",
            "did you mean method?",
        ),
        (
            '{"net": [{"if": "v", "type": "inet4"}]}',
            "$.net[0].type: expected inet or inet6, got 'inet4'",
            "did you mean inet?",
        ),
        ('{"net": [{"if": "v", "type": "inet"}]}', "$.net[0]: the key 'method' is missing", None),
        ('{\n "cmdline":\n   7}', "$.cmdline: expected a string, got a number (line 3, column 4)", None),
        ('{"env": {"PORT": 80}}', "$.env.PORT: expected a string, got a number", "put it in double quotes"),
        ('{"rc": [{"bin": "a", "argv": ["x", true]}]}', "$.rc[0].argv[1]: expected a string, got a boolean", None),
        ('{"rc": [{"bin": "a", "runmode": "|"}]}', "$.rc[0].runmode: the last program", None),
        ('{"cmdline": "a", "rc": [{"bin": "a"}]}', "$.cmdline: stands in for rc", None),
        ('{"env": {"A": "1", "A": "2"}}', "$.env.A: repeated key (line 1, column 25)", None),
        ('{"hostname": "a", "hostname": "b"}', "$.hostname: repeated key", None),
        ('{"env": "A=1", "env": {"B": "2"}}', "$.env: repeated key", None),
        ('{"net": [], "net": {"if": "v"}}', "$.net: repeated key", "put all entries into the first"),
        ('{"env": "A"}', "$.env: expected KEY=VALUE, got 'A'", None),
        ('{"hostname": "a b"}', "$.hostname: expected letters", None),
        ('{"cmdline": "a\\u0000"}', "$.cmdline: a NUL", None),
        (
            '{"blk": [{"source": "dev", "path": "/dev/ld0a", "mountpoint": "data"}]}',
            "$.blk[0].mountpoint: expected an",
            None,
        ),
        ('{"x` - at `$.foo[0]": 1}', "unknown key", "known keys: cmdline, rc, env, hostname, net, blk"),
        ('{"hostname": "x - at `$.foo[1]"}', "$.hostname: expected letters", None),
        (
            '{"net": [{"if": "v", "type": "x - at `$.y[0]", "method": "dhcp"}]}',
            "$.net[0].type: expected inet or inet6, got 'x - at",
            None,
        ),
        (
            '{"net": [{"if": "v", "type": "inet", "method": "static", "addr": "1.2.3.4", "mask": 24.0}]}',
            "$.net[0].mask: expected a whole number",
            None,
        ),
        ("[]", "$: expected an object, got an array", None),
        ("", "expected a JSON value", None),
        ('{"cmdline": "a" "env": {}}', "expected ',' or '}', got", None),
        ('{"cmdline": "a"} x', "expected the end of the file, got 'x'", None),
        ('{"cmdline": "a', "string is not closed", None),
        ('{"cmdline": "a\nb"}', "string is not closed", None),
        ('{"cmdline": "\\q"}', "escape that is none of JSON's", None),
        ('{"cmdline": "\\ud800"}', "escape that is none of JSON's", None),
        ('{"cmdline": nul}', "expected a JSON value, got 'nul}'", None),
        ('{"x": ' + "9" * 100_000 + "}", "number has too many digits", None),
        ("[" * 100_000, "is nested deeper than 32", None),
        ('{"a":' * 100_000, "is nested deeper than 32", None),
    ],
)
def test_errors_name_the_path_and_the_place(text, message, hint):
    error = refused(text)
    assert message in str(error)
    assert str(error).startswith("cfg.json: ")
    assert error.hint == hint


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('"method": "static", "addr": "10.0.0.2", "mask": 300', "mask: expected a prefix length 0-32, got 300"),
        ('"method": "static", "addr": "10.0.0.2", "mask": "300"', "mask: expected a prefix length 0-32, got 300"),
        ('"method": "static", "addr": "10.0.0.2", "mask": "/24"', "mask: expected a number, got a string"),
        ('"method": "static", "addr": "10.0.0", "mask": 8', "addr: expected an IPv4 address, got '10.0.0'"),
        ('"method": "static", "addr": "fe80::1", "mask": 8', "addr: expected an IPv4 address, got 'fe80::1'"),
        ('"method": "static", "addr": "10.0.0.2"', "mask: missing, method static needs it"),
        ('"method": "static", "mask": 8', "addr: missing, method static needs it"),
        ('"method": "static", "addr": "10.0.0.2", "mask": 8, "gw": "x"', "gw: expected an IPv4 address, got 'x'"),
        ('"method": "auto"', "method: inet takes dhcp or static, got auto"),
        ('"method": "dhcp", "gw": "10.0.0.1"', "gw: only method static takes it"),
    ],
)
def test_networks_are_checked(entry, message):
    error = refused('{"net": [{"if": "vioif0", "type": "inet", ' + entry + "}]}")
    assert f"$.net[0].{message}" in str(error)


def test_the_size_is_bounded():
    assert "larger than 1 MiB" in str(refused(" " * jsontext.MAX_BYTES + "{}"))


def test_other_encodings_are_refused():
    with pytest.raises(ConfigError, match="byte 14 is not UTF-8"):
        config.parse(b'{"hostname": "\xff"}', "cfg.json")
    assert config.parse(b'\xef\xbb\xbf{"hostname": "a"}', "cfg.json") == Config(hostname="a")


def test_options_fill_in_the_same_configuration():
    base = Config(env={"A": "1", "B": "2"}, net=(Network(interface="vioif0", type="inet", method="dhcp"),))
    found = config.combined(
        base,
        program="app",
        env=["B=3", "C=x=y"],
        hostname="h",
        net=["vioif0,inet,static,10.0.0.2/24,10.0.0.1", "vioif1,inet6,auto"],
        arguments=["-v", "a b"],
    )
    assert found == Config(
        env={"A": "1", "B": "3", "C": "x=y"},
        hostname="h",
        net=(
            Network(interface="vioif0", type="inet", method="static", addr="10.0.0.2", mask=24, gw="10.0.0.1"),
            Network(interface="vioif1", type="inet6", method="auto"),
        ),
        rc=(Program(bin="app", argv=("-v", "a b")),),
    )


def test_arguments_join_the_one_program():
    base = Config(rc=(Program(bin="httpd", argv=("-d",)),))
    assert config.combined(base, program="app", arguments=["x"]).rc == (Program(bin="httpd", argv=("-d", "x")),)
    with pytest.raises(UsageError, match="several programs"):
        config.combined(Config(rc=(*base.rc, *base.rc)), program="app", arguments=["x"])
    with pytest.raises(UsageError, match="cmdline"):
        config.combined(Config(cmdline="a"), program="app", arguments=["x"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": ["A"]}, "expected KEY=VALUE, got 'A'"),
        ({"env": ["A B=1"]}, "expected a variable's name"),
        ({"env": ["A=\udcff"]}, r"env.A: is not UTF-8, which a configuration is: '\\udcff'"),
        ({"env": ["\udcff=A"]}, "env: is not UTF-8"),
        ({"arguments": ["\udcff"]}, r"rc\[0\].argv\[0\]: is not UTF-8"),
        ({"hostname": "a b"}, "hostname: expected letters"),
        ({"net": ["vioif0"]}, "expected IF,inet,dhcp"),
        ({"net": ["vioif0,inet,dhcp,x"]}, "expected IF,inet,dhcp"),
        ({"net": ["vioif0,inet,static,10.0.0.2"]}, "mask: missing"),
        ({"net": ["vioif0,inet,static,10.0.0.2/x"]}, "mask: expected a number"),
        ({"net": ["vioif0,ipv4,dhcp"]}, "type: expected inet or inet6"),
        ({"net": ["vioif0,inet,static"]}, "addr: missing"),
        *(
            ({"net": [text]}, "--net: is not UTF-8")
            for text in ("\udcff,inet,dhcp", "v,in\udcff,dhcp", "v,inet,\udcff")
        ),
        ({"net": ["v,inet,static,10.0.0.2/\udcff"]}, "--net: is not UTF-8"),
    ],
)
def test_malformed_options_are_refused(options, message):
    with pytest.raises(RumpbundleError, match=message):
        config.combined(None, program="app", **options)


def test_the_published_schema_is_the_one_enforced():
    published = Path(__file__).parents[1] / "docs" / "config.schema.json"
    assert published.read_text() == config.schema_text(), "run: rumpbundle config --schema > docs/config.schema.json"
    assert json.loads(published.read_text())["$defs"]["Network"]["additionalProperties"] is False


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
NAME = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="="), min_size=1, max_size=8)
PROGRAM = st.builds(Program, bin=TEXT.filter(bool), argv=st.lists(TEXT, max_size=3).map(tuple))
CONFIG = st.builds(
    Config,
    rc=st.lists(PROGRAM, max_size=3).map(tuple),
    env=st.dictionaries(NAME, TEXT, max_size=3),
    hostname=st.none() | st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True),
)


@given(CONFIG)
def test_what_is_written_as_json_is_read_back(wanted):
    assert config.parse(msgspec.json.encode(wanted), "cfg.json") == wanted
    assert parse(json.dumps(msgspec.to_builtins(wanted), indent=1)) == wanted


@given(st.binary(max_size=200) | st.text(alphabet='{}[]:,"\\ \nabcdeunv019-.', max_size=60).map(str.encode))
def test_noise_is_refused_without_a_traceback(data):
    with contextlib.suppress(ConfigError):
        config.parse(data, "cfg.json")


CORPUS = sorted((Path(__file__).parent / "corpus" / "config").iterdir())
REFUSED = {
    "old-tool-quotes.cfg", "utf-16.json", "lone-surrogate.json", "nul.json", "repeated.json", "mixed-env.json",
    "deep.json", "digits.json", "truncated.json", "near-misses.json", "commas.json", "types.json",
}  # fmt: skip


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus_is_read_or_refused(path):
    if path.name in REFUSED:
        with pytest.raises(ConfigError, match=path.name):
            config.parse(path.read_bytes(), path.name)
    else:
        config.parse(path.read_bytes(), path.name)


@given(st.data())
def test_a_damaged_configuration_is_refused_without_a_traceback(data):
    text = data.draw(st.sampled_from(CORPUS)).read_bytes()
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(start + 6, len(text))))
        piece = data.draw(st.binary(max_size=6) | st.sampled_from([b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\u"]))
        text = text[:start] + piece + text[end:]
    with contextlib.suppress(ConfigError):
        config.parse(text, "cfg.json")
