"""The spool: received objects on disk, addressed by the SHA-256 of their data set.

An object is written to `incoming/` while it arrives and hashed on the way. To keep it: fsync of the file,
a hard link at its address `<xx>/<digest>.dcm`, fsync of that folder. The name in `incoming/` goes only
after the ledger has the row (`Incoming.settle`), so whatever a killed process leaves there is exactly what
nobody has recorded: with a second link it is complete, without one it was never finished.
"""

import errno
import hashlib
import os
import re
import struct
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import DiskNearlyFull, FileDamaged, NotParseable, ObjectRefused, SpoolFailed
from dicom_node.records import StoredInstance

IMPLEMENTATION_CLASS_UID = "2.25.181234904170914518270114725230346212337"
IMPLEMENTATION_VERSION_NAME = "SEGNODE_0"

_ADDRESS = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}\.dcm")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CHUNK = 1 << 20
_META_AT_MOST = 16 * 1024
_LONG = {b"OB", b"UN", b"OW", b"SQ", b"UT"}  # value representations with a 32-bit length


@dataclass(frozen=True)
class FileMeta:
    """What the file meta information says of the data set behind it (PS3.10 section 7.1)."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str

    def encoded(self) -> bytes:
        """Preamble of zeros (it may carry anything, even a program), prefix and group 0002."""
        elements = b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01" + b"".join(
            struct.pack("<HH2sH", 2, element, vr, len(value)) + value
            for element, vr, value in (
                (0x0002, b"UI", _even(self.sop_class_uid, b"\0")),
                (0x0003, b"UI", _even(self.sop_instance_uid, b"\0")),
                (0x0010, b"UI", _even(self.transfer_syntax_uid, b"\0")),
                (0x0012, b"UI", _even(IMPLEMENTATION_CLASS_UID, b"\0")),
                (0x0013, b"SH", _even(IMPLEMENTATION_VERSION_NAME, b" ")),
            )
        )
        return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(elements)) + elements


@dataclass(frozen=True)
class Stored:
    """Where a data set lies: digest and size of its bytes, and the file's path relative to the spool."""

    digest: str
    size: int
    path: str


class Incoming:
    """One object on its way into the spool.

    `write` as often as bytes arrive, then either `commit` and, once it is recorded, `settle`, or
    `quarantine`, or `discard`. Every method raises ObjectRefused (DiskNearlyFull, SpoolFailed) where the disk
    does not do as told.
    """

    def __init__(self, spool: "Spool", meta: FileMeta) -> None:
        self._spool = spool
        self.path = spool.folder / "incoming" / f"{uuid.uuid4().hex}.part"
        self._hash = hashlib.sha256()
        self._header = meta.encoded()
        self._size = 0
        self._committed = False
        with _disk_errors():
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            self._put(self._header)
        except ObjectRefused:
            self.discard()
            raise

    def write(self, data: bytes | memoryview) -> None:
        """Appends bytes of the data set exactly as they came."""
        self._put(data)
        self._hash.update(data)
        self._size += len(data)

    def _put(self, data: bytes | memoryview) -> None:
        with _disk_errors():
            written = os.write(self._file, data)
            while written < len(data):  # a signal or a full disk may take a part only
                step = os.write(self._file, memoryview(data)[written:])
                if not step:
                    raise OSError(errno.ENOSPC, "short write")
                written += step

    @property
    def size(self) -> int:
        """Bytes of the data set so far."""
        return self._size

    @property
    def stored(self) -> Stored:
        """The address that the bytes written so far have."""
        digest = self._hash.hexdigest()
        return Stored(digest, self._size, f"{digest[:2]}/{digest}.dcm")

    def is_stored(self) -> bool:
        """Whether there is a file at the address of these bytes already."""
        return (self._spool.folder / self.stored.path).is_file()

    def commit(self) -> Stored:
        """Makes the object durable at its address; after this call it survives a power cut."""
        stored = self.stored
        target = self._spool.folder / stored.path
        with _disk_errors():
            os.fsync(self._file)
            if os.fstat(self._file).st_size != len(self._header) + self._size:
                raise OSError(errno.EIO, "the file has another length than what was written")
            try:
                os.link(self.path, target)
            except FileExistsError:  # sent again, though not recorded or damaged: the fresh bytes win
                self.path.replace(target)
            sync_folder(target.parent)
        self._committed = True
        return stored

    def settle(self) -> None:
        """Ends the work after the ledger has the row: the name in `incoming/` goes."""
        self._close()
        with suppress(OSError):  # it stays until the next start, which finds it recorded
            self.path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leaves nothing behind; after `commit`, all that the next start needs to record the object."""
        if self._committed:
            self._close()
        else:
            self.settle()

    def quarantine(self) -> str:
        """Moves the file, whatever it holds, into the quarantine folder; returns its name there."""
        with _disk_errors():
            os.fsync(self._file)
            self.path.replace(self._spool.quarantine / f"{self.path.stem}.dcm")
            sync_folder(self._spool.quarantine)
        self._close()
        return f"{self.path.stem}.dcm"

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Spool:
    """The folder of received objects. File names never come from the network."""

    def __init__(self, folder: Path, quarantine: Path) -> None:
        self.folder = folder
        self.quarantine = quarantine
        quarantine.mkdir(parents=True, exist_ok=True)
        (folder / "incoming").mkdir(parents=True, exist_ok=True)
        for number in range(256):
            (folder / f"{number:02x}").mkdir(exist_ok=True)
        for path in (folder, folder.parent, quarantine.parent):
            sync_folder(path)

    def receive(self, meta: FileMeta) -> Incoming:
        """Begins a new object; raises ObjectRefused where the disk takes nothing."""
        return Incoming(self, meta)

    def store(self, meta: FileMeta, data: Iterable[bytes | memoryview]) -> Stored:
        """Stores a whole object durably in one call; raises ObjectRefused."""
        incoming = self.receive(meta)
        try:
            for part in data:
                incoming.write(part)
            return incoming.commit()
        finally:
            incoming.settle()

    def path(self, relative: str) -> Path:
        """The file of a stored object; raises FileDamaged for anything that is no address in the spool."""
        if not _ADDRESS.fullmatch(relative):
            raise FileDamaged(f"'{relative[:80]}' is no address in the spool.")
        return self.folder / relative

    def verify(self, instance: StoredInstance) -> None:
        """Reads the object again and raises FileDamaged where it differs from what was received."""
        path = self.path(instance.path)
        try:
            digest, size = _digest(path)
        except (OSError, NotParseable) as error:
            raise FileDamaged(f"{instance.path} cannot be read: {type(error).__name__}.") from error
        if (digest, size) != (instance.digest, instance.size):
            raise FileDamaged(f"{instance.path} differs from what was received.")

    def free_gb(self) -> float:
        """Free space on the spool's disk in GB (10^9 bytes)."""
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize / 1e9

    def sweep(self) -> tuple[Path, ...]:
        """What a killed process left: removes unfinished files, returns the complete, unrecorded ones.

        Call it before anything is received, record what it returns, then `forget` each.
        """
        complete = []
        for path in sorted((self.folder / "incoming").iterdir()):
            if path.stat().st_nlink > 1:
                complete.append(path)
            else:
                path.unlink()
        return tuple(complete)

    def stored_at(self, pending: Path) -> Stored:
        """The address of a file that `sweep` returned."""
        digest, size = _digest(pending)
        return Stored(digest, size, f"{digest[:2]}/{digest}.dcm")

    def forget(self, pending: Path) -> None:
        """The file that `sweep` returned is recorded by now."""
        pending.unlink(missing_ok=True)


def read_meta(file: Path) -> tuple[FileMeta, int]:
    """The file meta information of any DICOM file, and where its data set begins.

    Raises NotParseable where there is none or it does not say what the data set is, OSError where the file
    cannot be read.
    """
    with file.open("rb") as stream:
        head = stream.read(_META_AT_MOST)
    if head[128:132] != b"DICM":
        raise NotParseable("This is not a DICOM file: the letters DICM are missing at byte 128.")
    at, found = 132, {}
    while at + 12 <= len(head) and head[at : at + 2] == b"\x02\x00":
        _, element, vr, length = struct.unpack_from("<HH2sH", head, at)
        at += 8
        if vr in _LONG:
            (length,), at = struct.unpack_from("<L", head, at), at + 4
        found[element] = head[at : at + length]
        at += length
    try:
        class_uid, instance_uid, syntax = (
            found[element].decode("ascii").strip("\0 ") for element in (0x0002, 0x0003, 0x0010)
        )
    except (KeyError, UnicodeDecodeError):
        raise NotParseable("The file meta information does not say what the data set is.") from None
    return FileMeta(syntax, class_uid, instance_uid), at


def _digest(path: Path) -> tuple[str, int]:
    """SHA-256 and length of the data set in a file of the spool."""
    digest, size = hashlib.sha256(), 0
    _, offset = read_meta(path)
    with path.open("rb") as file:
        file.seek(offset)
        while part := file.read(_CHUNK):
            digest.update(part)
            size += len(part)
    return digest.hexdigest(), size


def _even(text: str, pad: bytes) -> bytes:
    """Values have an even length (PS3.5 section 6.2)."""
    value = text.encode("ascii")
    return value + pad if len(value) % 2 else value


def sync_folder(folder: Path) -> None:
    """Makes new names in the folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Translates what the operating system says into the name that the sender gets as a status."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskNearlyFull(f"The spool's disk took no more: {error.strerror}.") from error
        raise SpoolFailed(f"The spool failed: {error.strerror}.") from error
