"""Signatures in minisign's format: Ed25519 over the BLAKE2b-512 of a file.

The format: https://jedisct1.github.io/minisign/#signature-format. The package ``cryptography``, which the extra
``sign`` brings, computes. A signature says nothing of the time: the same key and file give the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import CHUNK
from rumpbundle.errors import GuestError, InputError, MissingToolError, UsageError, one_line

SUFFIX = ".minisig"

_MOST = 1 << 14
"""Bytes read of a key or signature; minisign's own have a few hundred."""
_COMMENT = "untrusted comment: "
_TRUSTED = "trusted comment: "
_KEY, _PREHASHED, _LEGACY = b"Ed", b"ED", b"Ed"
_PLAIN, _SCRYPT, _CHECKSUM = b"\0\0", b"Sc", b"B2"
_PUBLIC_SIZE, _SECRET_SIZE, _SIGNATURE_SIZE = 42, 158, 74
_MEMORY = 1 << 30
"""What minisign gives scrypt: no key asks for more."""
_OPERATIONS = 1 << 25


@dataclass(frozen=True, slots=True)
class SecretKey:
    """A key that signs."""

    number: bytes
    """Eight bytes that tell keys apart."""
    seed: bytes

    @classmethod
    def read(cls, path: str | os.PathLike[str], password: Callable[[], str]) -> SecretKey:
        """Read minisign's key file at *path*; ask for its *password* only if it has one.

        Raises:
            InputError: it is none, or the password is wrong.
        """
        data = _decoded(_lines(path), 1, _SECRET_SIZE, path, "a secret key of minisign")
        if data[:2] != _KEY or data[4:6] != _CHECKSUM or data[2:4] not in (_PLAIN, _SCRYPT):
            raise InputError("is no secret key of minisign", where=path, hint="minisign -G makes one")
        kept = data[54:]
        if data[2:4] == _SCRYPT:
            kept = _decrypted(data, password(), path)
            if hashlib.blake2b(data[:2] + kept[:72], digest_size=32).digest() != kept[72:]:
                raise InputError("the password is wrong", where=path)
        return cls(kept[:8], kept[8:40])

    def sign(self, path: Path, trusted: str) -> bytes:
        """Return the signature file of *path*; the *trusted* comment is signed as well."""
        key = _ed25519().Ed25519PrivateKey.from_private_bytes(self.seed)
        signature = key.sign(_digest(path))
        whole = key.sign(signature + trusted.encode("utf-8"))
        lines = [
            f"{_COMMENT}signature by rumpbundle, for minisign -V",
            _encoded(_PREHASHED + self.number + signature),
            f"{_TRUSTED}{trusted}",
            _encoded(whole),
        ]
        return "".join(f"{line}\n" for line in lines).encode("utf-8")

    def sign_output(self, file: Path, bundle: str) -> bytes:
        """Return the signature file of *file*, an output of the bundle whose digest is *bundle*."""
        return self.sign(file, f"file:{one_line(file.name)} bundle:{bundle}")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that tells whether a signature is its secret sister's."""

    number: bytes
    key: bytes

    @classmethod
    def read(cls, text: str) -> PublicKey:
        """Return the key in the file *text*, or that *text* is itself, in base64.

        Raises:
            InputError: it is none.
        """
        lines = ["", text] if len(text) == 56 and not os.path.exists(text) else _lines(text)
        data = _decoded(lines, 1, _PUBLIC_SIZE, text, "a public key of minisign")
        if data[:2] != _KEY:
            raise InputError("is no public key of minisign", where=text)
        return cls(data[2:10], data[10:])

    def check(self, path: Path, signature: Path) -> str:
        """Return the trusted comment of the file *signature*, if it is that of *path* by this key.

        Raises:
            GuestError: it is not, or there is none.
        """
        if not signature.exists():
            raise GuestError(f"is not signed: there is no {signature.name}", where=path)
        lines = _lines(signature)
        data = _decoded(lines, 1, _SIGNATURE_SIZE, signature, "a signature of minisign")
        whole = _decoded(lines, 3, 64, signature, "a signature of minisign")
        if data[:2] == _LEGACY:
            raise GuestError("is a signature of the old kind", where=signature, hint="sign again, without -l")
        if data[:2] != _PREHASHED or not lines[2].startswith(_TRUSTED):
            raise InputError("is no signature of minisign", where=signature)
        if data[2:10] != self.number:
            raise GuestError(f"is signed by another key, {_shown(data[2:10])}", where=path)
        trusted = lines[2].removeprefix(_TRUSTED)
        if not self._is_ours(data[10:], _digest(path)):
            raise GuestError("is not what was signed: file and signature do not belong together", where=path)
        if not self._is_ours(whole, data[10:] + trusted.encode("utf-8", "surrogateescape")):
            raise GuestError("has a trusted comment that was not signed", where=signature)
        return trusted

    def _is_ours(self, signature: bytes, data: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            _ed25519().Ed25519PublicKey.from_public_bytes(self.key).verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def __str__(self) -> str:
        return _shown(self.number)


def path_beside(output: Path, file: Path) -> Path:
    """Return where the signature of *file* stands: beside *output* if it is in that, else beside itself."""
    return signature_path(output if output in file.parents else file, file)


def signature_path(output: Path, file: Path) -> Path:
    """Return where the signature of *file* stands: beside *output*, which is that file or a directory it is in."""
    inner = [] if file == output else [part for part in file.relative_to(output).parts if part != ".."]
    return output.with_name(".".join([output.name, *inner]) + SUFFIX)


def signed_files(output: Path) -> Iterable[tuple[Path, Path]]:
    """Yield *output*, or each file in it if it is a directory, with the path of its signature."""
    files = sorted(path for path in output.rglob("*") if path.is_file()) if output.is_dir() else [output]
    return ((file, signature_path(output, file)) for file in files)


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        hint = "pipx inject rumpbundle cryptography, or: pip install 'rumpbundle[sign]'"
        raise MissingToolError("signatures need the Python package cryptography", hint=hint) from None
    return ed25519


def _lines(path: str | os.PathLike[str]) -> list[str]:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST)
    except (OSError, ValueError) as error:
        reason = os.strerror(getattr(error, "errno", 0) or 2)
        raise InputError(f"cannot be read: {reason}", where=path) from None
    return [line.rstrip("\r") for line in data.decode("utf-8", "surrogateescape").split("\n")]


def _decoded(lines: list[str], index: int, size: int, where: str | os.PathLike[str], what: str) -> bytes:
    """Return the *size* bytes that line *index* holds in base64."""
    try:
        data = base64.b64decode(lines[index], validate=True)
    except (IndexError, ValueError, binascii.Error):
        data = b""
    if len(data) != size:
        raise InputError(f"is not {what}", where=where)
    return data


def _decrypted(data: bytes, password: str, path: str | os.PathLike[str]) -> bytes:
    """Return the key in *data*, which scrypt of *password* hides; N and p are chosen as libsodium does."""
    salt, operations, memory = (
        data[6:38],
        int.from_bytes(data[38:46], "little"),
        int.from_bytes(data[46:54], "little"),
    )
    if operations > _OPERATIONS or not 1 << 24 <= memory <= _MEMORY:
        raise UsageError("asks for more memory or time than minisign's own keys", where=path)
    operations = max(operations, 32768)
    short = operations < memory // 32
    most = operations // 32 if short else memory // 1024
    n = 1 << max(1, most.bit_length() - 1)
    p = 1 if short else max(1, operations // 4 // n // 8)
    secret = password.encode("utf-8", "surrogateescape")
    stream = hashlib.scrypt(secret, salt=salt, n=n, r=8, p=p, maxmem=2**31 - 1, dklen=104)
    return bytes(a ^ b for a, b in zip(data[54:], stream, strict=True))


def _digest(path: Path) -> bytes:
    digest = hashlib.blake2b()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"cannot be read: {os.strerror(error.errno or 0)}", where=path) from None
    return digest.digest()


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _shown(number: bytes) -> str:
    """Return a key's number as minisign shows it."""
    return f"{int.from_bytes(number, 'little'):016X}"
