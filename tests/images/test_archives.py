"""The disk in an archive: whoever wrote the tar, and of several disks the one the OVF has first."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile

import pytest
from support import disks, kernels
from support.media import Bytes
from support.tools import output_of

from rumpbundle.cli import main
from rumpbundle.disk.layout import MIB
from rumpbundle.errors import ImageError
from rumpbundle.events import Note
from rumpbundle.images.containers import ovf
from rumpbundle.images.containers.archive_check import problems
from rumpbundle.images.containers.tar import members
from rumpbundle.images.detect import open_disk
from rumpbundle.images.medium import FdMedium

SPARSE = {
    "oldgnu": ["--format=oldgnu", "-S"],
    "gnu": ["--format=gnu", "-S"],
    "pax 0.0": ["--format=posix", "-S", "--sparse-version=0.0"],
    "pax 0.1": ["--format=posix", "-S", "--sparse-version=0.1"],
    "pax 1.0": ["--format=posix", "-S", "--sparse-version=1.0"],
    "pax": ["--format=posix"],
    "ustar": ["--format=ustar"],
    "v7": ["--format=v7"],
}


@pytest.fixture(scope="module")
def holes(tmp_path_factory):
    """A directory with disk.raw, of so many holes that their map needs headers of its own, and its content."""
    directory = tmp_path_factory.mktemp("holes")
    content = bytearray(8 * MIB)
    with (directory / "disk.raw").open("wb") as file:
        file.truncate(len(content))
        for number in range(60):
            data = disks.noise(4096, number)
            content[number * 131072 : number * 131072 + 4096] = data
            os.pwrite(file.fileno(), data, number * 131072)
    return directory, bytes(content)


@pytest.mark.parametrize("packed", ["", "z", "J"])
@pytest.mark.parametrize("name", SPARSE)
def test_whatever_tar_wrote(holes, tmp_path, name, packed):
    directory, content = holes
    subprocess.run(
        ["tar", "-C", directory, *SPARSE[name], f"-c{packed}f", tmp_path / "image", "disk.raw"], check=True
    )
    with open_disk(tmp_path / "image") as disk:
        assert disk.size == len(content)
        assert disk.read(0, disk.size) == content
        assert disk.around[-1] == "tar"


def tar(*files: tuple[str, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def raw(seed: int) -> bytes:
    return disks.noise(4096, seed)


def opened(path, data: bytes) -> bytes:
    path.write_bytes(data)
    with open_disk(path) as disk:
        return disk.read(0, disk.size)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("length", [99, 100, 101, 110, 400])
def test_long_names(tmp_path, length, format):
    assert opened(tmp_path / "x", tar((("n" * length) + ".img", raw(1)), format=format)) == raw(1)


def test_a_prefix_makes_a_long_name(tmp_path):
    data = tar(("d" * 90 + "/" + "n" * 60 + ".img", raw(1)), format=tarfile.USTAR_FORMAT)
    path = tmp_path / "x"
    assert opened(path, data) == raw(1)
    with path.open("rb") as file:
        assert [member.name for member in members(FdMedium(file.fileno()))] == ["d" * 90 + "/" + "n" * 60 + ".img"]


@pytest.mark.parametrize("with_data", [False, True])
def test_links_and_directories_that_say_a_size(tmp_path, with_data):
    """Some programs write the size of what a link leads to, and no data; a hard link may have them all the same."""
    parts = []
    kinds = (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)
    for number, kind in enumerate(kinds[2:] if with_data else kinds):
        info = tarfile.TarInfo(f"link{number}")
        info.type, info.size, info.linkname = kind, 4096, "other"
        parts += [info.tobuf(tarfile.USTAR_FORMAT), raw(7) if with_data else b""]
    assert opened(tmp_path / "x", b"".join(parts) + tar(("disk.raw", raw(1)))) == raw(1)


def test_a_header_whose_sum_was_made_with_signs(tmp_path):
    data = bytearray(tar(("ü.img", raw(1))))
    high = sum(byte > 127 for byte in data[:512])
    data[148:156] = b"%06o\0 " % (int(data[148:154], 8) - 256 * high)
    assert high
    assert opened(tmp_path / "x", bytes(data)) == raw(1)


def test_what_does_not_belong_to_the_archive_never_matters(tmp_path):
    files = [("../disk.raw", raw(1)), ("/disk.raw", raw(2)), ("._disk.raw", raw(3)), ("__MACOSX/disk.raw", raw(4)),
             ("a/../../b.img", raw(5)), ("./disk.raw", raw(6))]  # fmt: skip
    assert opened(tmp_path / "x", tar(*files)) == raw(6)
    with pytest.raises(ImageError, match="holds no disk"):
        opened(tmp_path / "y", tar(*files[:-1]))


NAMESPACES = 'xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"'


def description(files: str, listed: str, items: str = "") -> bytes:
    text = f"""<?xml version="1.0"?><Envelope {NAMESPACES}>
<References>{files}</References><DiskSection><Info/>{listed}</DiskSection>
<VirtualSystem ovf:id="m"><VirtualHardwareSection>{items}</VirtualHardwareSection></VirtualSystem></Envelope>"""
    return text.encode()


FILES = '<File ovf:id="f1" ovf:href="data.img"/><File ovf:id="f2" ovf:href="boot.img"/>'
DISKS = '<Disk ovf:diskId="d1" ovf:fileRef="f1"/><Disk ovf:diskId="d2" ovf:fileRef="f2"/>'


def item(kind: int, instance: int, host: str = "", parent: int = 0, at: int = 0) -> str:
    return (
        f"<Item><r:InstanceID xmlns:r='x'>{instance}</r:InstanceID><ResourceType>{kind}</ResourceType>"
        f"<HostResource>{host}</HostResource><Parent>{parent}</Parent><AddressOnParent>{at}</AddressOnParent></Item>"
    )


MACHINE = '</VirtualHardwareSection></VirtualSystem><VirtualSystem ovf:id="n"><VirtualHardwareSection>'


@pytest.mark.parametrize(
    ("items", "first"),
    [
        ("", "data.img"),
        (item(17, 9, "ovf:/disk/d2", 3, 0) + item(17, 8, "ovf:/disk/d1", 3, 1) + item(6, 3), "boot.img"),
        (item(6, 3) + item(17, 8, "ovf:/disk/d1", 3, 1) + item(17, 9, "ovf:/disk/d2", 3, 0), "boot.img"),
        (item(5, 3) + item(6, 4) + item(17, 8, "/disk/d1", 4, 0) + item(17, 9, "ovf://disk/d2", 3, 1), "boot.img"),
        (item(17, 8, "ovf:/disk/d1") + item(17, 9, "ovf:/disk/d2"), "data.img"),
        (item(17, 8, "ovf:/file/f2"), "boot.img"),  # without a disk of the list
        # Two machines, each with a controller 3.
        (item(6, 3) + item(17, 8, "ovf:/disk/d2", 3, 1) + MACHINE + item(6, 3) + item(17, 8, "ovf:/disk/d1", 3, 0),
         "boot.img"),
    ],
)  # fmt: skip
def test_the_ovf_says_which_disk_is_first(tmp_path, items, first):
    files = [("data.img", raw(1)), ("boot.img", raw(2)), ("m.ovf", description(FILES, DISKS, items))]
    expected = {"data.img": raw(1), "boot.img": raw(2)}[first]
    for order in (files, files[::-1]):
        assert opened(tmp_path / "x.ova", tar(*order)) == expected
        assert opened(tmp_path / "x.ova.gz", gzip.compress(tar(*order))) == expected


def test_an_ovf_of_version_0_9_names_its_disk(tmp_path):
    text = description('<File ovf:id="f" ovf:href="a.img"/>', '<Disk ovf:diskId="d" ovf:fileRef="f"/>')
    old = b'Section xmlns:x="y" x:type="ovf:DiskSection_Type"'
    text = text.replace(b"<DiskSection", b"<" + old).replace(b"</DiskSection", b"</Section")
    assert opened(tmp_path / "x.ova", tar(("m.ovf", text), ("a.img", raw(1)), ("b.img", raw(2)))) == raw(1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (description('<File id="f" href="a.img" compression="gzip"/>', '<Disk diskId="d" fileRef="f"/>'),
         r"its disk a\.img is compressed \(gzip\)"),
        (description('<File id="f" href="a.img" chunkSize="1000"/>', '<Disk diskId="d" fileRef="f"/>'),
         r"its disk a\.img is cut into chunks"),
        (description('<File id="f" href="a.img"/>', '<Disk diskId="d" fileRef="f" parentRef="e"/>'), "from a parent"),
        (description('<File id="f" href="../a.img"/>', '<Disk diskId="d" fileRef="f"/>'), "is not in the archive"),
        (description("", ""), "describes no disk"),
        (b"<Envelope", "is no XML"),
        (b'<?xml version="1.0" encoding="nonsense"?><Envelope/>', "is no XML that we read: unknown encoding"),
        (b'<?xml version="1.0" encoding="rot13"?><Envelope/>', "is no XML that we read: .* is not a text encoding"),
        (b" " * (5 << 20), "its description m.ovf has 5242880 bytes, more than the 4194304 that are read"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><Envelope/>', "declares a document type"),
    ],
)  # fmt: skip
def test_what_an_ovf_may_not_say(tmp_path, text, message):
    with pytest.raises(ImageError, match=message):
        opened(tmp_path / "x.ova", tar(("m.ovf", text), ("a.img", raw(1)), ("../a.img", raw(2))))


@pytest.mark.parametrize(
    ("named", "member"), [("a%20b.img", "a b.img"), ("a%20b.img", "a%20b.img"), ("a b.img", "a b.img")]
)
def test_a_name_with_a_blank(tmp_path, named, member):
    """VMware writes a URI, VirtualBox the name."""
    text = description(f'<File id="f" href="{named}"/>', '<Disk diskId="d" fileRef="f"/>')
    for order in ([("m.ovf", text), (member, raw(1))], [(member, raw(1)), ("m.ovf", text)]):
        assert opened(tmp_path / "x.ova", tar(("z.img", raw(2)), *order)) == raw(1)


def test_a_disk_with_a_parent_is_not_damaged(tmp_path):
    text = description('<File id="f" href="a.img"/>', '<Disk diskId="d" fileRef="f" parentRef="e"/>')
    (tmp_path / "x.ova").write_bytes(tar(("m.ovf", text), ("a.img", raw(1))))
    assert main(["verify", str(tmp_path / "x.ova")]) == 2


def test_our_own_ovf_names_its_disk(tmp_path):
    layout = disks.disk_of(MIB, disks.literal(0, disks.noise(5000)))
    with tarfile.open(disks.write(layout, tmp_path / "x.ova", "ova", "")) as archive:
        names = archive.getnames()
        text = archive.extractfile(names[0]).read()
    assert [disk.name for disk in ovf.disks(text)] == [name for name in names if name.endswith(".vmdk")]


def test_several_disks_and_nobody_who_says_which(tmp_path):
    with pytest.raises(ImageError, match=r"several disks and no \.ovf: a\.img, b\.vmdk"):
        opened(tmp_path / "x", tar(("a.img", raw(1)), ("b.vmdk", raw(2))))


def test_a_cloud_archive_of_another_tool(tmp_path):
    """As Vagrant's boxes are: a compressed tar with a qcow2 in it."""
    (tmp_path / "raw").write_bytes(bytes(MIB) + raw(1) + bytes(MIB - 4096))
    output_of("qemu-img", "convert", "-O", "qcow2", str(tmp_path / "raw"), str(tmp_path / "box.img"))
    data = tar(("metadata.json", b"{}"), ("box.img", (tmp_path / "box.img").read_bytes()))
    (tmp_path / "x.box").write_bytes(gzip.compress(data))
    with open_disk(tmp_path / "x.box") as disk:
        assert (disk.container, disk.around) == ("qcow2", ("gzip", "tar"))
        assert disk.read(MIB, 4096) == raw(1)


def test_hostile_maps_of_sparse_files(tmp_path):
    """Parts out of order, behind the end, or more than there is in the archive."""
    for entries in ([(4096, 512), (0, 512)], [(0, 1 << 40)], [(1 << 40, 512)]):
        head = bytearray(tar(("disk.raw", bytes(1024)))[:512])
        head[156:157] = b"S"
        for number, (offset, length) in enumerate(entries):
            head[386 + 24 * number : 410 + 24 * number] = b"%011o\0%011o\0" % (offset, length)
        head[483:495] = b"%011o\0" % 8192
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        with pytest.raises(ImageError, match="map of a sparse file is damaged"):
            opened(tmp_path / "x", bytes(head) + bytes(2048))


def test_two_files_of_one_name(tmp_path):
    """The first is read; what takes the other would see another disk."""
    with tarfile.open(tmp_path / "two.tar", "w") as archive:
        for data in (bytes(512), bytes(1024)):
            member = tarfile.TarInfo("disk.raw")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    data = (tmp_path / "two.tar").read_bytes()
    found = [problem.what for problem in problems(Bytes(data))]
    assert found == ["a second file is called disk.raw"]


@pytest.mark.parametrize("packed", [False, True])
def test_which_of_two_disks_is_read_is_said(tmp_path, capfd, packed):
    image = tmp_path / ("a.tar.gz" if packed else "a.tar")
    data = tar(("disk.raw", b"\1" * 4096), ("disk.raw", b"\2" * 4096))
    image.write_bytes(gzip.compress(data) if packed else data)
    said = f"note: {image.name}: the archive holds 2 files called disk.raw: the first is read"
    assert main(["convert", str(image), "-f", "raw", "-o", str(tmp_path / "out")]) == 0
    assert said in capfd.readouterr().err
    assert (tmp_path / "out").read_bytes()[:4096] == b"\1" * 4096
    for words in (["verify"], ["run", "--dry-run"], ["diff", str(image)]):
        main([words[0], str(image), *words[1:]])
        assert capfd.readouterr().err.count(said) == (2 if words[0] == "diff" else 1), words
    for words in (["ls"], ["cat", "/x"], ["config"], ["check", "--target", "qemu"]):
        assert main([words[0], str(image), *words[1:]]) in (2, 5)
        assert (said in capfd.readouterr().err) is not packed  # they look no further than to the disk


def test_inspect_says_once_which_of_two_disks_is_read(tmp_path, capsys):
    output_of("mke2fs", "-q", "-t", "ext2", str(tmp_path / "ext2"), "1M")
    content = (tmp_path / "ext2").read_bytes()
    (tmp_path / "a.tar").write_bytes(tar(("disk.raw", content), ("disk.raw", content)))
    assert main(["inspect", str(tmp_path / "a.tar")]) == 0
    out, err = capsys.readouterr()
    assert (out.count("holds 2 files called disk.raw"), err) == (1, "")


DISK = raw(1)


def machine(*names: str) -> bytes:
    files = "".join(f'<File id="f{name}" href="{name}"/>' for name in names)
    return description(files, "".join(f'<Disk diskId="d{name}" fileRef="f{name}"/>' for name in names))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([("a.ovf", machine("a.img")), ("a.img", DISK), ("b.ovf", machine("b.img")), ("b.img", raw(2))],
         ("the archive holds 2 machines (a.ovf, b.ovf): the first is read; "
          "the archive holds 2 disks (a.img, b.img): a.img is read")),
        ([("a.ovf", machine("a.img", "b.img")), ("b.img", raw(2)), ("a.img", DISK)],
         "the archive holds 2 disks (b.img, a.img): a.img is read"),
        ([("disk.raw", DISK), ("b.img", raw(2))], "the archive holds 2 disks (disk.raw, b.img): disk.raw is read"),
        ([("disk.raw", DISK), ("README", b"x" * 900)], ""),
    ],
)  # fmt: skip
def test_what_else_may_be_meant_is_said(tmp_path, files, said):
    for name, data in (("a.tar", tar(*files)), ("a.tar.gz", gzip.compress(tar(*files)))):
        (tmp_path / name).write_bytes(data)
        notes = []
        with open_disk(tmp_path / name, notes.append, whole=True) as disk:
            assert disk.read(0, 4096) == DISK
            assert disk.ambiguity == said
        assert [note.text for note in notes if isinstance(note, Note)] == ([f"{name}: {said}"] if said else [])


def test_a_hard_link_is_no_second_disk(tmp_path):
    (tmp_path / "a").write_bytes(linked(tarfile.LNKTYPE, "disk.raw", "b.img", ("b.img", DISK)))
    with open_disk(tmp_path / "a") as disk:
        assert disk.ambiguity == ""


@pytest.mark.parametrize("more", ["trailing", "second", "machines"])
def test_what_convert_takes_is_not_called_damaged(tmp_path, capfd, more):
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(4 * MIB)
    output_of("sfdisk", "-q", str(disk), input="label: gpt\n2048,,L\n")
    content = disk.read_bytes()
    data = {
        "trailing": gzip.compress(tar(("disk.raw", content))) + b"signed by somebody",
        "second": gzip.compress(tar(("disk.raw", content), ("disk.raw", raw(1)))),
        "machines": tar(("a.ovf", machine("a.img")), ("a.img", content), ("b.ovf", machine("a.img"))),
    }[more]
    (tmp_path / "x").write_bytes(data)
    assert main(["convert", str(tmp_path / "x"), "-q", "-f", "raw", "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_bytes() == content
    assert main(["verify", str(tmp_path / "x")]) == 0
    out = capfd.readouterr().out
    remark = {"trailing": "18 bytes follow the compressed data", "second": "a second file is called disk.raw",
              "machines": "b.ovf describes a second machine, beside a.ovf"}[more]  # fmt: skip
    assert remark in out


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, "v7"])
@pytest.mark.parametrize("before", [0, 512, 2560])
def test_an_archive_is_none_of_the_disks_in_it(tmp_path, format, before):
    """The GPT of its disk stands where a disk of larger sectors would have one."""
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(4 * MIB)
    output_of("sfdisk", "-q", str(disk), input="label: gpt\n2048,,L\n")
    (tmp_path / "a").write_bytes(bytes(before))
    names = [*(["a"] if before else []), "disk.raw"]
    kind = "v7" if format == "v7" else "gnu"
    output_of("tar", "-C", str(tmp_path), f"--format={kind}", "-cf", str(tmp_path / "x.tar"), *names)
    with open_disk(tmp_path / "x.tar") as found:
        assert (found.around, found.member, found.size) == (("tar",), "disk.raw", 4 * MIB)


def test_compressed_data_is_no_file_system(tmp_path):
    """The two bytes by which ext2 is known stand in any file of 65,536."""
    head = gzip.compress(raw(1))
    named = head[:3] + b"\x08" + head[4:10] + b"n" * 1070 + b"\x53\xef\0" + head[10:]
    assert named[0x438:0x43A] == b"\x53\xef"
    assert opened(tmp_path / "x", named) == raw(1)


@pytest.mark.parametrize("damage", ["cut", "sum"])
def test_a_compressed_archive_is_taken_only_whole(tmp_path, capfd, damage):
    """Its checksum stands behind all that the disk is read from."""
    data = gzip.compress(tar(("disk.raw", raw(1) * 100)))
    (tmp_path / "x").write_bytes(data[:-20] if damage == "cut" else data[:-8] + bytes(4) + data[-4:])
    for words in (["convert", "-f", "raw", "-o", str(tmp_path / "out")], ["inspect"], ["run", "--dry-run"]):
        assert main([words[0], str(tmp_path / "x"), *words[1:]]) == 2
        assert {"cut": "is cut off", "sum": "does not decompress"}[damage] in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["verify", str(tmp_path / "x")]) == 5


def test_in_one_of_ours_they_are_damage(tmp_path, capfd):
    app, image = str(kernels.build("multiboot")), tmp_path / "a.gce.tar.gz"
    assert main(["gce", app, "-q", "-o", str(image)]) == 0
    with image.open("ab") as file:
        file.write(b"signed by somebody")
    assert main(["verify", str(image)]) == 5
    assert "18 bytes follow the compressed data" in capfd.readouterr().out


def test_what_is_damaged_behind_the_disk_stops_nobody(tmp_path):
    data = tar(("disk.raw", b"\1" * 4096), ("other", b"\2" * 4096))
    (tmp_path / "a.tar").write_bytes(data[: 512 + 4096] + b"\xff" * 2048)
    with open_disk(tmp_path / "a.tar") as disk:
        assert disk.read(0, 1) == b"\1"


def linked(kind: bytes, name: str, target: str, *files: tuple[str, bytes]) -> bytes:
    """Return a tar of *files* in which *name* is a link to *target*."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member, data in files:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo(name)
        link.type, link.linkname = kind, target
        archive.addfile(link)
    return out.getvalue()


@pytest.mark.parametrize("target", ["a.bin", "d" * 120 + "/a.bin"])
def test_a_hard_link_is_the_file_before(tmp_path, target):
    data = linked(tarfile.LNKTYPE, "disk.raw", target, (target, raw(1)))
    assert opened(tmp_path / "x", data) == raw(1)


def test_a_symbolic_link_in_the_place_of_the_disk_is_told(tmp_path):
    text = description('<File id="f" href="d.img"/>', '<Disk diskId="d" fileRef="f"/>')
    for data in (
        linked(tarfile.SYMTYPE, "./disk.raw", "/dev/sda"),
        linked(tarfile.SYMTYPE, "d.img", "e.img", ("m.ovf", text), ("e.img", raw(1))),
    ):
        with pytest.raises(ImageError, match="holds a symbolic link in the place of the disk"):
            opened(tmp_path / "x", data)


def test_a_hard_link_that_leads_nowhere(tmp_path):
    with pytest.raises(ImageError, match="holds no disk"):
        opened(tmp_path / "x", linked(tarfile.LNKTYPE, "disk.raw", "/etc/passwd"))


def test_an_ovf_that_names_its_disk_from_here(tmp_path):
    text = description('<File id="f" href="./a%20b.img"/>', '<Disk diskId="d" fileRef="f"/>')
    assert opened(tmp_path / "x", tar(("m.ovf", text), ("./a b.img", raw(1)))) == raw(1)


@pytest.mark.parametrize(("href", "here"), [("a%20b.img", ""), ("a b.img", "./"), ("./a%20b.img", "./")])
def test_verify_finds_the_files_of_an_ova_however_they_are_spelled(tmp_path, capsys, href, here):
    """``tar -cf x.ova ./*`` writes a ./ before each name, and an OVF a URI."""
    text = description(f'<File id="f" href="{href}"/>', '<Disk diskId="d" fileRef="f"/>')
    sums = [("m.ovf", text), ("a b.img", raw(1))]
    listed = "".join(f"SHA256({name})= {hashlib.sha256(data).hexdigest()}\n" for name, data in sums)
    files = [*sums, ("m.mf", listed.encode())]
    (tmp_path / "x.ova").write_bytes(tar(*((here + name, data) for name, data in files)))
    assert list(problems(Bytes((tmp_path / "x.ova").read_bytes()))) == []
    files[-1] = ("m.mf", listed.replace("m.ovf", "n.ovf").encode())
    found = [problem.what for problem in problems(Bytes(tar(*((here + name, data) for name, data in files))))]
    assert found == ["it names n.ovf, which is not in the archive", "it has no digest of m.ovf"]
