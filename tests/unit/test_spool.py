"""The spool keeps what it took, under a power cut's rules, and nothing else."""

import hashlib
import itertools
import resource
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.errors import DiskNearlyFull, FileDamaged, NotParseable
from dicom_node.records import SliceHeader, StoredInstance
from dicom_node.spool import FileMeta, Spool, Stored, read_meta

META = FileMeta("1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5")
DATA = b"\x08\x00\x16\x00UI\x1a\x001.2.840.10008.5.1.4.1.1.2\x00" + b"\x10\x00\x20\x00LO\x04\x00X123"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", tmp_path / "quarantine")


def instance(stored: Stored) -> StoredInstance:
    return StoredInstance(
        "1.2.3.4.5", META.sop_class_uid, "1.2.3.4", "1.2.3", META.transfer_syntax_uid, stored.digest,
        stored.size, stored.path, datetime.now(UTC), None, "", "", SliceHeader(),
    )  # fmt: skip


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_bytes_are_kept_as_they_came(spool: Spool) -> None:
    """SCOPE A1: stored as received, behind a zero preamble and file meta that other readers take."""
    stored = spool.store(META, [DATA[:7], memoryview(DATA)[7:]])
    file = spool.path(stored.path).read_bytes()
    assert file.endswith(DATA)
    assert not any(file[:128])
    assert stored.digest == hashlib.sha256(DATA).hexdigest()
    assert stored.size == len(DATA)
    read = pydicom.dcmread(spool.path(stored.path))
    assert read.file_meta.MediaStorageSOPInstanceUID == "1.2.3.4.5"
    assert read.file_meta.FileMetaInformationGroupLength == len(file) - len(DATA) - 144
    assert read.PatientID == "X123"
    assert read_meta(spool.path(stored.path)) == (META, len(file) - len(DATA))


@given(cuts=st.lists(st.integers(0, 5000), max_size=8), data=st.binary(max_size=5000))
def test_the_address_does_not_depend_on_fragments(
    cuts: list[int], data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """SCOPE A1: the same bytes have the same address however the network cut them."""
    folder = tmp_path_factory.getbasetemp() / "fragments"
    spool = Spool(folder / "spool", folder / "quarantine")
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    incoming = spool.receive(META)
    for begin, end in itertools.pairwise(edges):
        incoming.write(data[begin:end])
    assert incoming.stored.digest == hashlib.sha256(data).hexdigest()
    assert incoming.size == len(data)
    incoming.discard()


def test_the_same_object_twice_is_one_file(spool: Spool) -> None:
    """SCOPE A3: duplicates cost nothing."""
    assert spool.store(META, [DATA]) == spool.store(META, [DATA])
    assert len(files(spool.folder)) == 1


def test_a_damaged_copy_is_replaced_by_a_fresh_one(spool: Spool) -> None:
    """SCOPE A3: sending again heals what the disk lost."""
    stored = spool.store(META, [DATA])
    spool.path(stored.path).write_bytes(b"rot")
    spool.store(META, [DATA])
    spool.verify(instance(stored))


def test_what_a_kill_leaves_is_found(spool: Spool) -> None:
    """SCOPE I1: unfinished files go, complete ones without a row come back, settled ones are no business."""
    spool.store(META, [DATA])
    unfinished = spool.receive(META)
    unfinished.write(DATA[:10])
    unrecorded = spool.receive(META)
    unrecorded.write(DATA + DATA)
    stored = unrecorded.commit()
    again = Spool(spool.folder, spool.quarantine)  # the next process
    (pending,) = again.sweep()
    assert again.stored_at(pending) == stored
    again.forget(pending)
    assert len(files(spool.folder)) == 2
    assert again.sweep() == ()
    assert spool.path(stored.path).read_bytes().endswith(DATA + DATA)


def test_a_stored_object_without_a_row_waits_for_the_next_start(spool: Spool) -> None:
    """SCOPE I1: where the ledger failed after the object was stored, the next start records it."""
    incoming = spool.receive(META)
    incoming.write(DATA)
    incoming.commit()
    incoming.discard()
    assert len(spool.sweep()) == 1


def test_damage_is_noticed(spool: Spool) -> None:
    """SCOPE I6: another byte, another length, no file: each is FileDamaged."""
    stored = spool.store(META, [DATA])
    spool.verify(instance(stored))
    file = spool.path(stored.path)
    whole = file.read_bytes()
    for damage in (whole[:-1], whole[:-1] + b"?", b"", whole + b"?"):
        file.write_bytes(damage)
        with pytest.raises(FileDamaged):
            spool.verify(instance(stored))
    file.unlink()
    with pytest.raises(FileDamaged):
        spool.verify(instance(stored))


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", "incoming/x.part", "", "aa/" + "a" * 63 + ".dcm"]
)
def test_only_addresses_are_paths(spool: Spool, path: str) -> None:
    """SCOPE A2: nothing outside the spool can be named."""
    with pytest.raises(FileDamaged):
        spool.path(path)


def test_a_disk_that_takes_a_part_only_is_full(spool: Spool) -> None:
    """SCOPE I6: a short write is an error, never a shorter file."""
    incoming = spool.receive(META)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(DiskNearlyFull):
            incoming.write(bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    incoming.discard()
    assert files(spool.folder) == []


def test_quarantine_keeps_the_bytes(spool: Spool) -> None:
    """SCOPE A2: what cannot be parsed is set aside, not lost."""
    incoming = spool.receive(META)
    incoming.write(b"not a data set")
    name = incoming.quarantine()
    assert (spool.quarantine / name).read_bytes().endswith(b"not a data set")
    assert files(spool.folder) == []


def test_meta_of_something_else(tmp_path: Path) -> None:
    """SCOPE A1: what is no DICOM file is named so."""
    for content in (
        b"",
        b"hello" * 100,
        bytes(128) + b"DICM",
        bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\xff\xff1.2",
    ):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(NotParseable):
            read_meta(tmp_path / "file")
