"""Components: linked with a stand-in for the guest and run, every byte comes back; and every tool agrees."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tools import output_of, require

from rumpbundle.cli import main
from rumpbundle.disk.content import Content
from rumpbundle.errors import InputError, UsageError
from rumpbundle.events import Note, Warned
from rumpbundle.guests.rumprun import component

# Writes what rumprun_platefs is called with to standard output: counts, names, lengths, flags, bytes.
STAND_IN = r"""
typedef __SIZE_TYPE__ size_t;
struct rumprun_extfile { const char *name; void *data; size_t length; int flags; };
static long write_call(long fd, const void *data, size_t length);
static void put(const void *data, size_t length) {
    const char *at = data;
    while (length) {
        long done = write_call(1, at, length);
        if (done <= 0) return;
        at += done; length -= done;
    }
}
static void number(unsigned value) { put(&value, 4); }
static void text(const char *s) { size_t n = 0; while (s[n]) n++; put(s, n + 1); }
void rumprun_platefs(const char **dirs, size_t ndirs, struct rumprun_extfile *files, size_t nfiles) {
    number(ndirs); number(nfiles);
    for (size_t i = 0; i < ndirs; i++) text(dirs[i]);
    for (size_t i = 0; i < nfiles; i++) {
        text(files[i].name);
        number(files[i].length); number(files[i].flags);
        put(files[i].data, files[i].length);
    }
}
"""
HOSTED = r"""
#include <unistd.h>
static long write_call(long fd, const void *data, size_t length) { return write(fd, data, length); }
int main(void) { return 0; }
"""
# The i386 program brings its own start and system calls: no 32-bit libc is needed to build it.
FREE = r"""
static long write_call(long fd, const void *data, size_t length) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(4L), "b"(fd), "c"(data), "d"(length) : "memory");
    return result;
}
extern void (*__init_array_start[])(void), (*__init_array_end[])(void);
__attribute__((force_align_arg_pointer)) void _start(void) {
    for (void (**f)(void) = __init_array_start; f < __init_array_end; f++) (*f)();
    __asm__ volatile("int $0x80" :: "a"(1L), "b"(0L));
}
"""
# AArch64: writes the four arguments and the program's whole memory; the test follows the pointers.
DUMP = """
.globl _start, rumprun_platefs
_start:
    ldr x19, =__init_array_start
    ldr x20, =__init_array_end
1:  cmp x19, x20
    b.eq 2f
    ldr x9, [x19], #8
    blr x9
    b 1b
2:  mov x0, #0
    mov x8, #93
    svc #0
rumprun_platefs:
    ldr x4, =__executable_start
    stp x0, x1, [sp, #-48]!
    stp x2, x3, [sp, #16]
    str x4, [sp, #32]
    mov x0, #1
    mov x1, sp
    mov x2, #40
    mov x8, #64
    svc #0
    add sp, sp, #48
    mov x0, #1
    ldr x1, =__executable_start
    ldr x2, =_end
    sub x2, x2, x1
    mov x8, #64
    svc #0
    ret
"""


@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "tree"
    (top / "etc/rc.d").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "index.html").write_bytes(b"<p>hello</p>\n")
    (top / "etc/nothing").write_bytes(b"")
    (top / "etc/rc.d/back\\slash").write_bytes(bytes(range(256)) * 33)
    (top / "ünïcode name").write_bytes(os.urandom(70001))
    os.link(top / "index.html", top / "index.htm")
    (top / os.fsdecode(b"latin1-\xe9")).write_bytes(b"x")
    return top


def wanted(*tops: tuple[Path, str]) -> tuple[list[bytes], dict[bytes, bytes]]:
    """What the guest must see of directories, each below a prefix."""
    directories, files = set(), {}
    for top, prefix in tops:
        above = [part for part in prefix.split("/") if part]
        directories |= {"/" + "/".join(above[: n + 1]) for n in range(len(above))}
        for path in top.rglob("*"):
            name = "/" + "/".join([*above, str(path.relative_to(top))])
            if path.is_dir():
                directories.add(name)
            else:
                files[os.fsencode(name)] = path.read_bytes()
    return sorted(map(os.fsencode, directories)), files


def write(content: Content, path: Path) -> Path:
    path.write_bytes(content.read())
    return path


def parse(out: bytes) -> list[tuple[list[bytes], dict[bytes, bytes]]]:
    """Read what STAND_IN wrote: one entry a call."""
    calls, at = [], 0

    def text() -> bytes:
        nonlocal at
        end = out.index(b"\0", at)
        found, at = out[at:end], end + 1
        return found

    while at < len(out):
        ndirs, nfiles = struct.unpack_from("<II", out, at)
        at += 8
        dirs = [text() for _ in range(ndirs)]
        files = {}
        for _ in range(nfiles):
            name = text()
            length, flags = struct.unpack_from("<II", out, at)
            assert flags == 0
            files[name] = out[at + 8 : at + 8 + length]
            at += 8 + length
        calls.append((dirs, files))
    return calls


def ran(program: str | list[str]) -> bytes:
    return subprocess.run(program, stdout=subprocess.PIPE, timeout=60, check=True).stdout


@pytest.mark.parametrize("flags", [[], ["-static", "-no-pie", "-O2"]], ids=["pie", "static"])
def test_two_components_link_run_and_give_back_every_byte(tree, tmp_path, flags):
    other = tmp_path / "other"
    (other / "deep/er").mkdir(parents=True)
    (other / "deep/er/file").write_bytes(b"second")
    sources = [(tree, "/"), (other, "/data/more")]
    objects = [
        write(component.write_object(component.collect([source]), "x86_64"), tmp_path / f"{n}.o")
        for n, source in enumerate(sources)
    ]
    (tmp_path / "main.c").write_text(STAND_IN + HOSTED)
    output_of(require("gcc"), *flags, "-Wall", "-Werror", "-Wl,--fatal-warnings", "-o", f"{tmp_path}/a.out",
              f"{tmp_path}/main.c", *map(str, objects))  # fmt: skip
    assert parse(ran(f"{tmp_path}/a.out")) == [wanted(source) for source in sources]


def test_i386_links_runs_and_gives_back_every_byte(tree, tmp_path):
    collected = component.collect([(tree, "/a/b")])
    made = write(component.write_object(collected, "i386"), tmp_path / "data.o")
    (tmp_path / "main.c").write_text(STAND_IN + FREE)
    output_of(require("gcc"), "-m32", "-static", "-no-pie", "-nostdlib", "-ffreestanding", "-fno-stack-protector",
              "-fno-tree-loop-distribute-patterns", "-Wl,--fatal-warnings",
              "-o", f"{tmp_path}/a.out", f"{tmp_path}/main.c", str(made))  # fmt: skip
    assert parse(ran([require("qemu-i386"), f"{tmp_path}/a.out"])) == [wanted((tree, "/a/b"))]


def test_aarch64_links_runs_and_gives_back_every_byte(tree, tmp_path):
    collected = component.collect([(tree, "/")])
    made = write(component.write_object(collected, "aarch64"), tmp_path / "data.o")
    (tmp_path / "dump.s").write_text(DUMP)
    output_of(require("aarch64-linux-gnu-as"), "-o", f"{tmp_path}/dump.o", f"{tmp_path}/dump.s")
    # -N makes one segment of everything, so that all memory between the two symbols is there to be written.
    output_of(require("aarch64-linux-gnu-ld"), "-N", "-o", f"{tmp_path}/a.out", f"{tmp_path}/dump.o", str(made))
    out = ran([require("qemu-aarch64"), f"{tmp_path}/a.out"])
    dirs, ndirs, files, nfiles, base = struct.unpack_from("<5Q", out)
    memory = out[40:]

    def text(at: int) -> bytes:
        return memory[at - base : memory.index(b"\0", at - base)]

    found = {}
    for index in range(nfiles):
        name, data, length, flags, padding = struct.unpack_from("<QQQii", memory, files - base + 32 * index)
        assert (flags, padding) == (0, 0)
        found[text(name)] = memory[data - base : data - base + length]
    pointers = struct.unpack_from(f"<{ndirs}Q", memory, dirs - base)
    assert ([text(at) for at in pointers], found) == wanted((tree, "/"))


RELOCATIONS = {
    "x86_64": {"R_X86_64_PC32", "R_X86_64_PLT32", "R_X86_64_64"},
    "i386": {"R_386_PC32", "R_386_32"},
    "aarch64": {
        "R_AARCH64_ADR_PREL_PG_HI21",
        "R_AARCH64_ADD_ABS_LO12_NC",
        "R_AARCH64_JUMP26",
        "R_AARCH64_ABS64",
    },
}


@pytest.mark.parametrize("machine", component.MACHINES)
def test_sections_symbols_and_relocations_are_what_the_facts_describe(tree, tmp_path, machine):
    made = write(component.write_object(component.collect([(tree, "/")]), machine), tmp_path / "data.o")
    said = output_of("readelf", "--wide", "--all", str(made))
    assert not re.search("warning|error", said, re.IGNORECASE), said
    sections = dict(re.findall(r"^ +\[ *\d+\] (\.\S+) +(\w+) ", said, re.MULTILINE))
    assert sections[".init_array"] == "INIT_ARRAY"
    assert sections[".note.GNU-stack"] == "PROGBITS"
    assert {".text", ".data", ".rodata", ".symtab", ".strtab"} <= set(sections)
    undefined = re.findall(r"(\w+) +(\w+) +UND (\w+)", said)
    assert undefined == [("GLOBAL", "DEFAULT", "rumprun_platefs")]
    assert len(re.findall("GLOBAL", said)) == 1
    assert set(re.findall(r" (R_\w+)", said)) == RELOCATIONS[machine]
    dump = "aarch64-linux-gnu-objdump" if machine == "aarch64" else "objdump"
    code = output_of(dump, "-dr", str(made))
    assert "(bad)" not in code
    assert "rumprun_platefs" in code


def test_an_object_only_depends_on_the_tree(tree, tmp_path, monkeypatch):
    once = component.write_object(component.collect([(tree, "/")]), "x86_64").read()
    monkeypatch.chdir(tree)
    for path in tree.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    assert component.write_object(component.collect([(".", "/")]), "x86_64").read() == once


def test_hard_links_take_guest_memory_once(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t/a").write_bytes(bytes(100000))
    alone = component.collect([(tmp_path / "t", "/")]).memory
    os.link(tmp_path / "t/a", tmp_path / "t/b")
    assert component.collect([(tmp_path / "t", "/")]).memory == alone + len("/b") + 1


def test_more_than_a_mebibyte_of_guest_memory_is_a_warning(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t/a").write_bytes(bytes(1 << 20))
    said: list = []
    component.collect([(tmp_path / "t", "/")], report=said.append)
    assert [type(event) for event in said] == [Warned]
    (tmp_path / "t/a").write_bytes(b"123")
    component.collect([(tmp_path / "t", "/")], report=said.append)
    assert said[1] == Note("1 file takes 19 bytes of the guest's memory")


def test_what_the_guest_would_panic_on_is_refused(tree, tmp_path):
    (tree / "etc/hosts").write_bytes(b"127.0.0.1 localhost\n")
    with pytest.raises(InputError, match="librumprunfs_base has this file") as caught:
        component.collect([(tree, "/")])
    assert "remove -lrumprunfs_base" in caught.value.hint
    assert "/etc/hosts" in dict(component.collect([(tree, "/")], replace_base=True).files)
    component.collect([(tree, "/elsewhere")])
    (tree / "etc/hosts").unlink()
    with pytest.raises(InputError, match="two files want this name"):
        component.collect([(tree, "/"), (tree, "/")])
    other = tmp_path / "other"
    (other / "index.html").mkdir(parents=True)
    with pytest.raises(InputError, match="a file in one directory and a directory in another"):
        component.collect([(tree, "/"), (other, "/")])
    (tree / ("d" * 200) / ("e" * 200) / ("f" * 200) / ("g" * 200)).mkdir(parents=True)
    component.collect([(tree, "/")])
    with pytest.raises(InputError, match="longer than the guest's limit of 1023"):
        component.collect([(tree, "/" + "p" * 250)])


@pytest.mark.parametrize("kind", ["fifo", "missing", "file"])
def test_what_is_no_tree_of_files_is_refused(tmp_path, kind):
    top = tmp_path / "t"
    if kind == "file":
        top.write_bytes(b"")
    elif kind == "fifo":
        top.mkdir()
        os.mkfifo(top / "pipe")
    with pytest.raises(InputError):
        component.collect([(top, "/")])


def test_links_are_refused_or_followed_inside_the_tree(tree):
    (tree / "link").symlink_to("etc/rc.d/back\\slash")
    (tree / "etc/up").symlink_to("../link")
    (tree / "etc/rc").symlink_to("./rc.d")
    with pytest.raises(InputError, match="is a symbolic link") as caught:
        component.collect([(tree, "/")])
    assert "--follow" in caught.value.hint
    said: list = []
    files = dict(component.collect([(tree, "/")], follow=True, report=said.append).files)
    assert files["/link"] is files["/etc/up"] is files["/etc/rc/back\\slash"] is files["/etc/rc.d/back\\slash"]
    assert sum(isinstance(event, Note) and "is a copy of" in event.text for event in said) == 3


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("/etc/passwd", "outside of the directory"),
        ("../t2/x", "outside of the directory"),
        ("etc/../../x", "outside of the directory"),
        ("gone", "not there"),
        ("index.html/x", "not there"),
        ("self", "circle"),
        (".", "a directory it lies in"),
        ("etc/back", "a directory it lies in"),
    ],
)
def test_links_that_cannot_be_followed_are_refused(tree, target, problem):
    (tree / "self").symlink_to(target)
    if "back" in target:
        (tree / "etc/back").symlink_to("..")
    with pytest.raises(InputError, match=problem):
        component.collect([(tree, "/")], follow=True)


def test_links_to_directories_that_multiply_are_bounded(tmp_path):
    for depth in range(40):
        (tmp_path / f"t/{depth:02}").mkdir(parents=True)
        for name in "ab":
            (tmp_path / f"t/{depth:02}/{name}").symlink_to(f"../{depth + 1:02}")
    (tmp_path / "t/40").mkdir()
    with pytest.raises(InputError, match="more than"):
        component.collect([(tmp_path / "t", "/")], follow=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("d", ("d", "/")),
        ("d:/x", ("d", "/x")),
        ("a:b", ("a:b", "/")),
        ("a:b:/c", ("a:b", "/c")),
        ("/d", ("/d", "/")),
        ("d e:/x y", ("d e", "/x y")),
        ("d:/x:y", ("d", "/x:y")),
        ("a:/b:/", ("a:/b", "/")),
        ("d:", ("d:", "/")),
    ],
)
def test_a_source_is_a_directory_and_perhaps_a_prefix(text, expected):
    assert component.split_source(text) == expected


def test_a_relative_prefix_is_explained(tree):
    with pytest.raises(InputError, match="no such directory") as caught:
        component.collect([component.split_source(f"{tree}:data")])
    assert caught.value.hint == "a PREFIX begins with a slash: DIR:/PREFIX"


def test_directories_with_colons_and_blanks_are_found(tmp_path):
    (tmp_path / "a:" / "b c").mkdir(parents=True)
    (tmp_path / "a:" / "b c" / "f").write_text("x")
    made = component.collect([component.split_source(f"{tmp_path}/a:/b c:/p:q")])
    assert [path for path, _ in made.files] == ["/p:q/f"]


@pytest.mark.parametrize("prefix", ["x", "/a/../b", "/./a", "", "/a\0b"])
def test_a_prefix_is_an_absolute_path(tree, prefix):
    with pytest.raises(UsageError):
        component.collect([(tree, prefix)])


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1, max_size=20),
        st.binary(max_size=200),
        max_size=12,
    ),
    st.sampled_from(sorted(component.MACHINES)),
)
def test_any_names_and_bytes_make_an_object_readelf_takes(tmp_path_factory, files, machine):
    contents = tuple((f"/{name}", Content.of_bytes(data)) for name, data in sorted(files.items()))
    made = write(
        component.write_object(component.Component((), contents), machine), tmp_path_factory.mktemp("o") / "data.o"
    )
    said = output_of("readelf", "--wide", "--sections", "--relocs", "--symbols", str(made))
    assert not re.search("warning|error", said, re.IGNORECASE), said


def test_the_command_writes_the_object_and_says_where(tree, tmp_path, capfd):
    out = tmp_path / "data.o"
    assert main(["component", f"{tree}:/srv", "-o", str(out), "--machine", "aarch64"]) == 0
    said = capfd.readouterr()
    assert said.out == f"{out}\n"
    assert "of the guest's memory" in said.err
    assert out.read_bytes() == component.write_object(component.collect([(tree, "/srv")]), "aarch64").read()
    assert main(["component", str(tree), "-o", str(out)]) == 2
    assert "already exists" in capfd.readouterr().err
    assert main(["component", str(tree), "-o", str(out), "--force", "--json", "-q"]) == 0
    said = capfd.readouterr()
    assert json.loads(said.out)["directories"] == ["/empty", "/etc", "/etc/rc.d"]
    assert said.err == ""


def test_a_dry_run_lists_and_writes_nothing(tree, tmp_path, capfd):
    assert main(["component", str(tree), "-o", str(tmp_path / "data.o"), "--dry-run"]) == 0
    assert "/index.html  13" in capfd.readouterr().out.splitlines()
    assert not (tmp_path / "data.o").exists()


def test_a_dry_run_has_a_line_for_each_name(tmp_path, capfd):
    (tmp_path / "tree" / "a\nb").mkdir(parents=True)
    assert main(["component", str(tmp_path / "tree"), "-o", str(tmp_path / "data.o"), "--dry-run", "-q"]) == 0
    assert capfd.readouterr().out == "/a\\nb/\n"
