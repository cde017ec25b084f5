"""Looks into the zip of a bundle without trusting it: everything is bounded before a byte is unpacked."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Final, NoReturn, TypeVar
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from kairos.errors import BundleError
from kairos.replay.bundle.layout import (
    DEFINITION,
    ENTRY,
    EVENTS,
    MANIFEST,
    MEBI,
    SEAL,
    SEAL_SIZE,
    Caps,
    Entry,
    blob_name,
)

T = TypeVar("T")

HOSTILE: Final = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, KeyError, TypeError,
    AttributeError, IndexError, OverflowError, OSError,
)  # fmt: skip
"""What the standard library raises over a malformed archive, or a fold over a forged history."""
_CHUNK: Final = MEBI
_END: Final = 22
_DEFLATE_FLAGS: Final = 0x6
"""Bits of an entry's flags that only say how hard it was compressed."""


def refuse(code: str, message: str, hint: str | None = None, **facts: Any) -> NoReturn:
    """Raise the BundleError."""
    raise BundleError(message, hint=hint, code=code, **facts) if hint else BundleError(message, code=code, **facts)


class Container:
    """An open bundle file, its entries listed and within the caps. Not for use by several threads.

    Raises:
        BundleError: it is not there, not a file, not a zip, broken, or larger than the caps allow.
    """

    def __init__(self, path: Path, caps: Caps) -> None:
        self.path, self.caps = path, caps
        self._file = _open(path)
        try:
            _check_seal(path, self._file)
            _check_end(path, self._file, caps)
            self._zip = self.guarded(lambda: ZipFile(self._file))
            self.infos = self._list()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *exc: object) -> None:
        self._zip.close()
        self._file.close()

    def guarded(self, work: Callable[[], T]) -> T:
        """Do `work`; what a malformed archive makes the standard library raise becomes a BundleError."""
        try:
            return work()
        except HOSTILE as exc:
            refuse("broken", f"{self.path} is broken: {exc}")

    def read(self, name: str, most: int) -> bytes:
        """The bytes of an entry, which may be at most so many."""
        info = self.infos.get(name)
        if info is None:
            refuse("missing", f"{self.path} is not a whole bundle: it has no {name}")
        if info.file_size > most:
            refuse("too_large", f"{self.path}: {name} would take {info.file_size:,} bytes; the limit is {most:,}")
        return self.guarded(lambda: self._zip.read(info))

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of an entry, one at a time; none may be longer than an entry may be."""
        with self.guarded(lambda: self._zip.open(self.infos[name])) as stream:
            while line := self.guarded(lambda: stream.readline(self.caps.entry)):
                if not line.endswith(b"\n"):
                    refuse("broken", f"{self.path}: a line of {name} has no end, or is too long")
                yield line[:-1]

    def check(self, name: str, expected: Entry) -> None:
        """Refuse if the entry's bytes are not what the manifest says."""
        info = self.infos[name]
        found, size = sha256(), 0
        with self.guarded(lambda: self._zip.open(info)) as stream:
            while chunk := self.guarded(lambda: stream.read(_CHUNK)):
                found.update(chunk)
                size += len(chunk)
        if (size, found.hexdigest()) != (expected.size, expected.sha256):
            refuse("changed", f"{self.path}: {name} was changed: its bytes are not those of the manifest", entry=name)

    def places(self) -> dict[str, int]:
        """Entry -> where in the file its local header begins."""
        return {name: info.header_offset for name, info in self.infos.items()}

    def _list(self) -> dict[str, ZipInfo]:
        infos: dict[str, ZipInfo] = {}
        for info in self._zip.infolist():
            name = ascii(info.orig_filename)[:90]
            if info.orig_filename != info.filename or not ENTRY.fullmatch(info.filename):
                refuse("foreign", f"{self.path} is not a bundle: it has an entry {name}")
            if info.filename in infos:
                refuse("foreign", f"{self.path} is not a bundle: it has two entries {name}")
            if info.flag_bits & ~_DEFLATE_FLAGS or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
                refuse("foreign", f"{self.path}: {name} is encrypted, or packed in a way that bundles are not")
            infos[info.filename] = info
        self._check_sizes(infos)
        return infos

    def _check_sizes(self, infos: Mapping[str, ZipInfo]) -> None:
        caps = self.caps
        if len(infos) > caps.entries:
            refuse("too_large", f"{self.path} has {len(infos):,} entries; the limit is {caps.entries:,}")
        for name, info in infos.items():
            most = caps.events if name == EVENTS else caps.entry
            if info.file_size > most:
                refuse("too_large", f"{self.path}: {name} would take {info.file_size:,} bytes; the limit is {most:,}")
            if info.file_size > MEBI and info.file_size > caps.ratio * info.compress_size:
                refuse("too_large", f"{self.path}: {name} would become over {caps.ratio} times larger than it is here")
        if (total := sum(info.file_size for info in infos.values())) > caps.total:
            refuse("too_large", f"{self.path} would take {total:,} bytes; the limit is {caps.total:,}")
        # Entries that share their bytes would make more of a file than it holds.
        if sum(info.compress_size for info in infos.values()) > os.fstat(self._file.fileno()).st_size:
            refuse("foreign", f"{self.path} is not a bundle: its entries overlap")
        for name in (MANIFEST, DEFINITION, EVENTS):
            if name not in infos:
                refuse("foreign", f"{self.path} is not a bundle: it has no {name}")


class Blobs(Mapping[str, bytes]):
    """The values of a bundle by digest, each read from the file and checked when it is asked for."""

    def __init__(self, path: Path, places: Mapping[str, int], entries: Mapping[str, Entry]) -> None:
        self._path, self._places, self._entries = path, places, entries

    def __getitem__(self, digest: str) -> bytes:
        entry = self._entries[digest]
        try:
            raw = self._read(self._places[digest], entry)
        except HOSTILE as exc:
            refuse("broken", f"{self._path} was changed while it was in use: {exc}")
        if sha256(raw).hexdigest() != entry.sha256:
            refuse("changed", f"{self._path} was changed while it was in use: value {digest[:12]} has another hash")
        return raw

    def _read(self, place: int, entry: Entry) -> bytes:
        with self._path.open("rb") as file:
            file.seek(place)
            header = file.read(30)
            packed, skip = int.from_bytes(header[8:10], "little"), sum(header[26:30:2]) + 256 * sum(header[27:30:2])
            file.seek(skip, os.SEEK_CUR)
            if packed == ZIP_STORED:
                return file.read(entry.size)
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            parts, left = [], entry.size
            while left > 0 and (chunk := file.read(_CHUNK)):
                parts.append(inflater.decompress(chunk, left))
                left -= len(parts[-1])
            return b"".join(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def blob_places(places: Mapping[str, int], digests: Iterator[str]) -> dict[str, int]:
    """Digest -> where its entry begins."""
    return {digest: places[blob_name(digest)] for digest in digests}


def _open(path: Path) -> IO[bytes]:
    try:
        # A pipe or a device would never come to an end.
        if not stat.S_ISREG(path.stat().st_mode):
            refuse("no_file", f"{path} is not a file")
        return path.open("rb")
    except FileNotFoundError:
        refuse("no_file", f"there is no file {path}", "`kairos export RUN -o FILE` writes one.")
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        refuse("no_file", f"{path} cannot be read: {why}", "Is it yours? Bundles are written with mode 0600.")


def _check_seal(path: Path, file: IO[bytes]) -> None:
    size = os.fstat(file.fileno()).st_size
    if file.read(4) != b"PK\x03\x04":
        refuse("foreign", f"{path} is not a bundle: it does not begin like one")
    file.seek(max(size - SEAL_SIZE, 0))
    seal = file.read(SEAL_SIZE)
    if len(seal) < SEAL_SIZE or not seal.startswith(SEAL):
        refuse("foreign", f"{path} is not a whole bundle: its end is missing, or another program wrote it")
    if seal_of(file, size - SEAL_SIZE) != seal:
        refuse("changed", f"{path} was changed, or damaged on its way: its bytes have another hash than its seal says")


def seal_of(file: IO[bytes], length: int) -> bytes:
    """The seal of the first `length` bytes."""
    found = sha256()
    file.seek(0)
    while length and (chunk := file.read(min(_CHUNK, length))):
        found.update(chunk)
        length -= len(chunk)
    return SEAL + found.hexdigest().encode()


def _check_end(path: Path, file: IO[bytes], caps: Caps) -> None:
    """One disk, a short directory: before the standard library reads the whole of it into memory."""
    file.seek(max(os.fstat(file.fileno()).st_size - SEAL_SIZE - _END, 0))
    end = file.read(_END)
    numbers = [int.from_bytes(end[i:j], "little") for i, j in ((4, 6), (6, 8), (8, 10), (10, 12), (12, 16), (20, 22))]
    disk, first_disk, here, entries, directory, comment = numbers
    if end[:4] != b"PK\x05\x06" or comment != SEAL_SIZE:
        refuse("foreign", f"{path} is not a bundle: its directory is not where it must be")
    if disk or first_disk or here != entries:
        refuse("foreign", f"{path} is a part of an archive on several disks, which no bundle is")
    if directory > caps.entries * 160:
        refuse("too_large", f"{path} has a directory of {directory:,} bytes, which is more than any bundle needs")
