"""The listener against DCMTK, against our own requestor, and against peers that mean no good."""

import hashlib
import logging
import random
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pydicom
import pytest
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import build_context

from dicom_node.commands import C_STORE_RQ, Command
from dicom_node.delivery.push import push_folder
from dicom_node.errors import CatalogueUnavailable, DestinationRefused, DestinationUnreachable
from dicom_node.listener import NodeListener
from dicom_node.memory import MemoryLedger
from dicom_node.records import AssociationEnding, StoredInstance
from dicom_node.requestor import DicomFile, RemoteEntity, StoreAssociation, files_in
from dicom_node.settings import ListenerSettings
from dicom_node.spool import FileMeta, Spool, read_meta
from dicom_node.upper_layer import RELEASE_RQ_PDU, data_header, our_user_information
from tests.bench.ingest import Segnode
from tests.peers import Storescp, run, unpack
from tests.wire.conftest import RunningListener

Listening = Callable[..., RunningListener]
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"


def data_of(file: Path) -> bytes:
    """The encoded data set of a file."""
    return file.read_bytes()[read_meta(file)[1] :]


def digests(files: Iterable[Path]) -> list[str]:
    """SHA-256 of the data sets."""
    return sorted(hashlib.sha256(data_of(file)).hexdigest() for file in files)


def stored(node: RunningListener) -> list[str]:
    """Every content in the spool, also what a later one with the same UID has replaced."""
    return digests(node.spool.folder.glob("[0-9a-f][0-9a-f]/*.dcm"))


def peer(
    node: RunningListener, calling: str = "SCANNER", called: str = "SEGNODE", timeout: float = 20
) -> RemoteEntity:
    return RemoteEntity("127.0.0.1", node.port, called, calling, timeout)


def endings(node: RunningListener) -> list[AssociationEnding | None]:
    return [ending for _, ending in node.ledger.associations.values()]


def unforeseen(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Errors that our own code logged."""
    return [
        r.getMessage()
        for r in caplog.records
        if r.name.startswith("dicom_node") and r.levelno >= logging.ERROR
    ]


def eventually(fact: Callable[[], bool], within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while not fact() and time.monotonic() < deadline:
        time.sleep(0.02)
    return fact()


def test_echo(listening: Listening, program: Callable[[str], str]) -> None:
    """SCOPE A1: C-ECHO."""
    program("echoscu")
    node = listening()
    assert run("echoscu", "-aec", "SEGNODE", "127.0.0.1", str(node.port)).returncode == 0
    assert endings(node) == [AssociationEnding.RELEASED]


def both_receive(node: RunningListener, storescp: Storescp, options: list[str], folder: Path) -> None:
    """The same files by dcmsend to our listener and to storescp, which writes what it got bit by bit."""
    for port in (node.port, storescp.port):
        done = run("dcmsend", "-v", *options, "+sd", "+r", "127.0.0.1", str(port), str(folder))
        assert "with status SUCCESS" in done.stderr + done.stdout, done.stderr


@pytest.fixture
def exact_storescp(tmp_path: Path, program: Callable[[str], str]) -> Iterator[Storescp]:
    program("storescp")
    program("dcmsend")
    with Storescp(tmp_path / "exact", "+B", "+xa") as peer:
        yield peer


def test_dcmsend_byte_equal(listening: Listening, chest: Path, exact_storescp: Storescp) -> None:
    """SCOPE A1: a real series from DCMTK lies in the spool byte for byte, with what routing needs."""
    node = listening()
    both_receive(node, exact_storescp, [], chest)
    assert stored(node) == digests(exact_storescp.received.iterdir())
    assert len(node.ledger.instances()) == 30
    for item in node.ledger.instances():
        node.spool.verify(item)
        assert item.header.modality == "CT"
        assert item.header.position is not None
        assert item.association_id == 1
    assert endings(node) == [AssociationEnding.RELEASED]
    assert node.leftovers() == []


def test_compressed_files_byte_equal(listening: Listening, syntaxes: Path, exact_storescp: Storescp) -> None:
    """SCOPE A1: JPEG, JPEG-LS, JPEG 2000, RLE and uncompressed arrive as they were sent."""
    node = listening()
    exact: set[str] = set()  # the folders hold the same UIDs in different encodings
    for folder in sorted({file.path.parent for file in files_in(syntaxes)[0]}):
        both_receive(node, exact_storescp, ["-dn", "-nh"], folder)
        exact |= set(digests(exact_storescp.received.iterdir()))
    assert set(stored(node)) == exact
    assert len(exact) >= 20


def test_our_own_requestor_byte_equal(listening: Listening, chest: Path, syntaxes: Path) -> None:
    """SCOPE A1: files sent as they are arrive as they are."""
    for folder in (chest, syntaxes):
        node = listening()
        report = push_folder(folder, f"SEGNODE@127.0.0.1:{node.port}")
        assert report.refused == ()
        assert set(stored(node)) == set(digests(file.path for file in files_in(folder)[0]))


@pytest.mark.parametrize(
    "case",
    [("+ti", "-xi", "1.2.840.10008.1.2"), ("+te", "-xe", EXPLICIT), ("+td", "-xd", "1.2.840.10008.1.2.1.99"),
     ("+tb", "-xb", "1.2.840.10008.1.2.2")],
)  # fmt: skip
def test_uncompressed_encodings_from_dcmtk(
    listening: Listening,
    chest: Path,
    tmp_path: Path,
    program: Callable[[str], str],
    case: tuple[str, str, str],
) -> None:
    """SCOPE A1: implicit, explicit, deflated and big endian data sets."""
    convert, send, syntax = case
    program("dcmconv")
    program("storescu")
    node = listening()
    source = files_in(chest)[0][0].path
    file = tmp_path / "converted.dcm"
    assert run("dcmconv", convert, str(source), str(file)).returncode == 0
    assert run("storescu", send, "127.0.0.1", str(node.port), str(file)).returncode == 0
    (item,) = node.ledger.instances()
    assert item.transfer_syntax_uid == syntax
    assert item.header.rows == 512
    read = pydicom.dcmread(node.spool.path(item.path))
    assert (read.pixel_array == pydicom.dcmread(source).pixel_array).all()
    if syntax != "1.2.840.10008.1.2.1.99":  # DCMTK deflates anew while it sends
        assert data_of(node.spool.path(item.path)) == data_of(file)


def test_every_odd_file_is_taken_as_it_is_or_refused_by_name(
    listening: Listening, shared_data: Path, tmp_path: Path
) -> None:
    """SCOPE A1, A2: strange real files: stored byte for byte, or refused, quarantined and recorded."""
    for name in (
        "pydicom_test_files.zip",
        "pydicom_data_selection.zip",
        "mr_4slices_each_transfer_syntax.zip",
    ):
        unpack(shared_data / "odd_dicom" / name, tmp_path / "odd")
    node = listening()
    report = push_folder(tmp_path / "odd", f"SEGNODE@127.0.0.1:{node.port}")
    print(report)
    assert report.sent > 60
    refused = {path for path, _ in report.refused}
    assert {"MR_truncated.dcm", "rtplan_truncated.dcm"} <= {path.name for path in refused}
    taken = {file.path for file in files_in(tmp_path / "odd")[0]} - refused
    assert set(stored(node)) <= set(digests(taken))
    quarantined = [r for r in node.ledger.refusals if r.name == "NotParseable"]
    assert quarantined
    for refusal in quarantined:
        assert (node.spool.quarantine / refusal.path).is_file()
    assert node.leftovers() == []


def test_unknown_calling_ae_is_rejected(listening: Listening) -> None:
    """SCOPE A2: with an allow-list, nobody else."""
    node = listening(allowed_calling_ae=("SCANNER",))
    with StoreAssociation(peer(node)) as association:
        association.echo()
    with pytest.raises(DestinationRefused, match="calling AE title"):
        StoreAssociation(peer(node, calling="INTRUDER"))
    assert [r.name for r in node.ledger.refusals] == ["CallingAENotRecognised"]


def test_wrong_called_ae_is_rejected_where_required(listening: Listening) -> None:
    """SCOPE A2: the called AE title counts where the settings say so."""
    strict, easy = listening(require_called_ae=True), listening()
    with pytest.raises(DestinationRefused, match="AE title called"):
        StoreAssociation(peer(strict, called="PACS"))
    with StoreAssociation(peer(easy, called="PACS")) as association:
        association.echo()


def test_disk_nearly_full(listening: Listening, chest: Path) -> None:
    """SCOPE A2, I6: 0xA700 while there is less space than configured, and nothing is written."""
    node = listening(min_free_gb=1e9)
    report = push_folder(chest, f"SEGNODE@127.0.0.1:{node.port}")
    assert report.sent == 0
    assert {reason for _, reason in report.refused} == {"0xA700 DiskNearlyFull"}
    assert len(node.ledger.refusals) == 30
    assert node.leftovers() == []


def altered(
    file: DicomFile, target: Path, cut: int = 0, meta: FileMeta | None = None, data: bytes | None = None
) -> DicomFile:
    """A copy with other file meta (which is what a requestor's command says), cut or replaced data."""
    content = data_of(file.path) if data is None else data
    target.write_bytes((meta or file.meta).encoded() + content[: len(content) - cut])
    return DicomFile.at(target)


def test_objects_that_are_not_taken(listening: Listening, chest: Path, tmp_path: Path) -> None:
    """SCOPE A2: truncated, garbage, without UIDs, mismatched: a status, a name; the association lives on."""
    node = listening()
    good = files_in(chest)[0][0]
    meta = good.meta
    cases = [
        (altered(good, tmp_path / "cut.dcm", cut=1000), 0xC000),
        (altered(good, tmp_path / "tiny.dcm", data=b"\x08\x00"), 0xC000),
        (altered(good, tmp_path / "garbage.dcm", data=random.Random(1).randbytes(5000)), 0xC000),
        (altered(good, tmp_path / "empty.dcm", data=b"\x08\x00\x60\x00CS\x02\x00CT"), 0xC000),
        (altered(good, tmp_path / "uid.dcm", meta=FileMeta(EXPLICIT, CT, "1.2.3")), 0xA900),
        (altered(good, tmp_path / "path.dcm", meta=FileMeta(EXPLICIT, CT, "../../../etc/x")), 0xA900),
        (altered(good, tmp_path / "class.dcm", meta=FileMeta(EXPLICIT, MR, meta.sop_instance_uid)), 0xA900),
    ]  # fmt: skip
    with StoreAssociation(peer(node), [f.context for f, _ in cases] + [good.context]) as association:
        for file, status in cases:
            assert association.store(file).status == status, file.path.name
        assert association.store(good).status == 0
        association.echo()
    assert len(node.ledger.instances()) == 1
    assert len(node.ledger.refusals) == len(cases)
    assert len(list(node.spool.quarantine.iterdir())) == 4
    assert node.leftovers() == []


def test_a_duplicate_is_not_written_again(listening: Listening, chest: Path) -> None:
    """SCOPE A3: the same study sent twice."""
    node = listening()
    push_folder(chest, f"SEGNODE@127.0.0.1:{node.port}")
    before = {item.path: node.spool.path(item.path).stat().st_ino for item in node.ledger.instances()}
    assert push_folder(chest, f"SEGNODE@127.0.0.1:{node.port}").sent == 30
    after = {item.path: node.spool.path(item.path).stat().st_ino for item in node.ledger.instances()}
    assert before == after
    assert node.leftovers() == []


def test_one_uid_with_other_content_is_kept_beside(listening: Listening, chest: Path, tmp_path: Path) -> None:
    """SCOPE A3: both contents are on disk, the later one is current."""
    node = listening()
    good = files_in(chest)[0][0]
    dataset = pydicom.dcmread(good.path)
    dataset.SeriesDescription = "other"
    dataset.save_as(tmp_path / "other.dcm")
    with StoreAssociation(peer(node), [good.context]) as association:
        assert association.store(good).status == 0
        (first,) = node.ledger.instances()
        assert association.store(DicomFile.at(tmp_path / "other.dcm")).status == 0
    (second,) = node.ledger.instances()
    assert second.header.series_description == "other"
    node.spool.verify(first)
    node.spool.verify(second)


def test_a_lost_object_is_written_again(listening: Listening, chest: Path) -> None:
    """SCOPE A3: recorded, but the file is gone: a duplicate brings it back."""
    node = listening()
    good = files_in(chest)[0][0]
    with StoreAssociation(peer(node), [good.context]) as association:
        association.store(good)
        (item,) = node.ledger.instances()
        node.spool.path(item.path).unlink()
        assert association.store(good).status == 0
    node.spool.verify(item)


class FailingLedger(MemoryLedger):
    """A ledger whose disk is gone."""

    def record(self, instance: StoredInstance) -> None:
        raise CatalogueUnavailable("The catalogue's disk is gone.")


def test_no_success_without_a_row(tmp_path: Path, chest: Path) -> None:
    """SCOPE A1: the ledger fails: 0x0110; the next start records what was stored."""
    spool = Spool(tmp_path / "spool", tmp_path / "quarantine")
    settings = ListenerSettings(port=0, min_free_gb=0)
    listener = NodeListener(settings, "SEGNODE", spool, FailingLedger())
    listener.start()
    good = files_in(chest)[0][0]
    with StoreAssociation(
        RemoteEntity("127.0.0.1", listener.port, "SEGNODE", "SCANNER"), [good.context]
    ) as association:
        assert association.store(good).status == 0x0110
    listener.stop()
    ledger = MemoryLedger()
    successor = NodeListener(settings, "SEGNODE", spool, ledger)
    successor.start()
    successor.stop()
    (item,) = ledger.instances()
    assert data_of(spool.path(item.path)) == data_of(good.path)
    assert list((spool.folder / "incoming").iterdir()) == []


def test_a_disk_that_fails_while_it_writes(listening: Listening, chest: Path) -> None:
    """SCOPE I6: the spool's folder is gone: a failure status, never Success, and the node lives on."""
    node = listening()
    good = files_in(chest)[0][0]
    (node.spool.folder / "incoming").rename(node.spool.folder / "away")
    with StoreAssociation(peer(node), [good.context]) as association:
        assert association.store(good).status == 0x0110
        (node.spool.folder / "away").rename(node.spool.folder / "incoming")
        assert association.store(good).status == 0
    assert [r.name for r in node.ledger.refusals] == ["SpoolFailed"]


# --- peers that mean no good ---


def request_bytes(contexts: list[tuple[str, str]], calling: str = "SCANNER") -> bytes:
    """An A-ASSOCIATE-RQ."""
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = calling, "SEGNODE"
    proposed = [build_context(*context) for context in contexts]
    for number, context in enumerate(proposed):
        context.context_id = 2 * number + 1
    request.presentation_context_definition_list = proposed
    request.user_information = our_user_information()
    return bytes(A_ASSOCIATE_RQ(request).encode())


def store_bytes(file: DicomFile, context: int = 1, fragment: int = 60_000) -> bytes:
    """A whole C-STORE request in P-DATA PDUs."""
    command = Command(C_STORE_RQ, 1, file.meta.sop_class_uid, file.meta.sop_instance_uid, True).encoded()
    data = data_of(file.path)
    pdus = [data_header(context, 3, len(command)) + command]
    for at in range(0, len(data), fragment):
        part = data[at : at + fragment]
        pdus.append(data_header(context, 2 if at + fragment >= len(data) else 0, len(part)) + part)
    return b"".join(pdus)


def connect(node: RunningListener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.port), timeout=20)


def drain(connection: socket.socket) -> bytes:
    """Everything until the peer closes."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def alive(node: RunningListener, good: DicomFile) -> None:
    """Nothing is left behind and the node goes on serving."""
    assert eventually(lambda: node.leftovers() == [])
    with StoreAssociation(peer(node), [good.context]) as association:
        association.echo()
        assert association.store(good).status == 0


@pytest.fixture
def good(chest: Path) -> DicomFile:
    return files_in(chest)[0][0]


def test_abort_in_the_middle_of_an_object(listening: Listening, good: DicomFile) -> None:
    """SCOPE A2: half an object, then the connection is gone: ABORTED, and no file."""
    node = listening()
    for goodbye in (b"", bytes((7, 0, 0, 0, 0, 4, 0, 0, 0, 0))):
        with connect(node) as connection:
            connection.sendall(request_bytes([good.context]))
            connection.recv(65536)
            connection.sendall(store_bytes(good)[:200_000])
            connection.sendall(goodbye)
    assert eventually(lambda: endings(node) == [AssociationEnding.ABORTED] * 2)
    assert node.ledger.instances() == ()
    alive(node, good)


def test_a_release_in_the_middle_of_an_object_is_no_release(listening: Listening, good: DicomFile) -> None:
    """SCOPE A3: a clean release is evidence of completion; this is none."""
    node = listening()
    with connect(node) as connection:
        connection.sendall(request_bytes([good.context]))
        connection.recv(65536)
        whole = store_bytes(good)
        first = 6 + struct.unpack(">L", whole[2:6])[0]
        connection.sendall(whole[:first] + RELEASE_RQ_PDU)
        drain(connection)
    assert eventually(lambda: endings(node) == [AssociationEnding.ABORTED])
    alive(node, good)


def test_silence_ends_the_association(listening: Listening, good: DicomFile) -> None:
    """SCOPE A2: idle peers lose their slot."""
    node = listening(idle_timeout_s=0.5)
    with connect(node) as connection:
        connection.sendall(request_bytes([good.context]))
        begun = time.monotonic()
        drain(connection)
        assert 0.3 < time.monotonic() - begun < 5
    assert eventually(lambda: endings(node) == [AssociationEnding.ABORTED])


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "4 GiB request": struct.pack(">BBL", 1, 0, 0xFFFFFFFF) + bytes(1000),
    "empty request": struct.pack(">BBL", 1, 0, 0),
    "zeros": struct.pack(">BBL", 1, 0, 68) + bytes(68),
    "release first": RELEASE_RQ_PDU,
    "data first": data_header(1, 3, 10) + bytes(10),
    "unknown PDU": struct.pack(">BBL", 99, 0, 4) + bytes(4),
    "nothing": b"",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_no_dicom_at_all(
    listening: Listening, good: DicomFile, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SCOPE A2: whatever comes first, the connection ends and the node goes on."""
    node = listening()
    with caplog.at_level(logging.ERROR), connect(node) as connection:
        connection.sendall(GARBAGE[name])
        connection.shutdown(socket.SHUT_WR)
        drain(connection)
    assert unforeseen(caplog) == []
    assert endings(node) == []
    alive(node, good)


def p_data(context: int, control: int, data: bytes) -> bytes:
    return data_header(context, control, len(data)) + data


COMMAND = Command(C_STORE_RQ, 1, CT, "1.2.3", True).encoded()
BROKEN = {
    "4 GiB PDU": struct.pack(">BBL", 4, 0, 0xFFFFFFF0),
    "endless command": p_data(1, 1, bytes(8000)) * 4,
    "command that is none": p_data(1, 3, b"\xff" * 100),
    "empty command": p_data(1, 3, b""),
    "data before command": p_data(1, 2, bytes(100)),
    "unknown context": p_data(77, 3, COMMAND),
    "context changes": p_data(1, 3, COMMAND) + p_data(3, 2, bytes(10)),
    "command in the data": p_data(1, 3, COMMAND) + p_data(1, 3, COMMAND),
    "impossible fragment": struct.pack(">BBLLBB", 4, 0, 6, 1000, 1, 3),
    "fragment of one byte": struct.pack(">BBLLB", 4, 0, 5, 1, 1),
    "second request": request_bytes([(CT, EXPLICIT)]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_protocol_broken_in_the_data_phase(
    listening: Listening, good: DicomFile, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SCOPE A2: each is answered with A-ABORT and recorded as ABORTED."""
    node = listening()
    with caplog.at_level(logging.ERROR), connect(node) as connection:
        connection.sendall(request_bytes([(CT, EXPLICIT), (VERIFICATION, EXPLICIT)]))
        connection.recv(65536)
        connection.sendall(BROKEN[name])
        assert drain(connection)[:1] == b"\x07"
    assert unforeseen(caplog) == []
    assert eventually(lambda: endings(node) == [AssociationEnding.ABORTED])
    alive(node, good)


def test_c_store_on_the_verification_context(listening: Listening, good: DicomFile) -> None:
    """SCOPE A2: an image does not come in by the back door."""
    node = listening()
    with connect(node) as connection:
        connection.sendall(request_bytes([(VERIFICATION, EXPLICIT)]))
        connection.recv(65536)
        connection.sendall(store_bytes(good) + RELEASE_RQ_PDU)
        drain(connection)
    assert [r.name for r in node.ledger.refusals] == ["ContextMismatch"]
    assert node.ledger.instances() == ()


def test_an_object_without_end_is_cut_off(listening: Listening, good: DicomFile) -> None:
    """SCOPE A2: listener.max_object_gb holds, by association and on disk."""
    node = listening(max_object_gb=0.001)
    with connect(node) as connection, pytest.raises(OSError):  # noqa: PT012
        connection.sendall(request_bytes([good.context]))
        connection.recv(65536)
        connection.sendall(
            p_data(1, 3, Command(C_STORE_RQ, 1, CT, good.meta.sop_instance_uid, True).encoded())
        )
        for _ in range(2000):
            connection.sendall(p_data(1, 0, bytes(100_000)))
    assert eventually(lambda: endings(node) == [AssociationEnding.ABORTED])
    assert eventually(lambda: node.leftovers() == [])
    assert "larger than" in node.ledger.refusals[0].sentence


def test_a_big_object_costs_no_memory(tmp_path: Path, chest: Path) -> None:
    """SCOPE A1: 256 MB stream through a process that hardly grows, and lie in the spool whole."""
    good = files_in(chest)[0][0]
    header = data_of(good.path).partition(b"\xe0\x7f\x10\x00OW\x00\x00")[0]
    big = tmp_path / "big.dcm"
    with big.open("wb") as file:
        file.write(good.meta.encoded() + header + b"\xe0\x7f\x10\x00OW\x00\x00" + struct.pack("<L", 1 << 28))
        file.truncate(file.tell() + (1 << 28))
    with Segnode(tmp_path / "node") as node:
        with StoreAssociation(
            RemoteEntity("127.0.0.1", node.port, "SEGNODE", "SCANNER"), [good.context]
        ) as first:
            assert first.store(good).status == 0
            before = peak_memory(node.pid)
            assert first.store(DicomFile.at(big)).status == 0
        assert peak_memory(node.pid) - before < 20e6
    assert any(f.stat().st_size > 1 << 28 for f in (tmp_path / "node" / "spool").rglob("*.dcm"))


def peak_memory(pid: int) -> int:
    """Resident bytes at their highest."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_half_open_and_trickling_peers_do_not_lock_the_node(listening: Listening, good: DicomFile) -> None:
    """SCOPE A2: connections that say nothing, or a byte now and then, do not keep a scanner out for long."""
    node = listening(max_associations=4)
    silent = [connect(node) for _ in range(40)]
    for connection in silent[:3]:
        connection.send(b"\x01")
    assert eventually(lambda: _serves(node, good), within=15)
    for connection in silent:
        connection.close()


def _serves(node: RunningListener, good: DicomFile) -> bool:
    try:
        with StoreAssociation(peer(node, timeout=2), [good.context]) as association:
            return association.store(good).status == 0
    except (DestinationUnreachable, DestinationRefused):
        return False


def test_too_many_associations_are_rejected(listening: Listening) -> None:
    """SCOPE A2: one more than listener.max_associations hears that it is too many."""
    node = listening(max_associations=2)
    rejected = pytest.raises(DestinationRefused, match="too many associations")
    with StoreAssociation(peer(node)), StoreAssociation(peer(node)), rejected:
        StoreAssociation(peer(node))
    assert eventually(lambda: _answers(node))


def _answers(node: RunningListener) -> bool:
    try:
        with StoreAssociation(peer(node)) as association:
            association.echo()
    except DestinationRefused:
        return False
    return True


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_mutated_conversations(
    listening: Listening, good: DicomFile, caplog: pytest.LogCaptureFixture
) -> None:
    """SCOPE A2: 300 conversations with flipped, cut, doubled bytes: no unforeseen error, nothing left."""
    node = listening(max_associations=64, idle_timeout_s=0.3)
    random_ = random.Random(20)
    valid = (
        request_bytes([good.context, (VERIFICATION, EXPLICIT)]) + store_bytes(good)[:3000] + RELEASE_RQ_PDU
    )
    with caplog.at_level(logging.ERROR):
        for _ in range(300):
            data = bytearray(valid)
            for _ in range(random_.randint(1, 12)):
                at = random_.randrange(len(data) if random_.random() < 0.3 else 700)
                match random_.randrange(4):
                    case 0:
                        data[at] = random_.randrange(256)
                    case 1:
                        del data[at : at + random_.randint(1, 20)]
                    case 2:
                        data[at:at] = data[at : at + random_.randint(1, 40)]
                    case _:
                        data[at : at + 4] = random_.choice([b"\xff" * 4, bytes(4), b"\x00\x00\xff\xff"])
            with connect(node) as connection:
                try:
                    connection.sendall(data)
                    connection.shutdown(socket.SHUT_WR)
                except OSError:
                    continue
                drain(connection)
    assert unforeseen(caplog) == []
    assert eventually(lambda: None not in endings(node))
    alive(node, good)


def test_stop_cuts_what_is_open(listening: Listening, good: DicomFile) -> None:
    """SCOPE I2: stop returns in time though a peer stays, and its end is recorded."""
    node = listening()
    with connect(node) as connection:
        connection.sendall(request_bytes([good.context]))
        connection.recv(65536)
        begun = time.monotonic()
        node.listener.stop()
        assert time.monotonic() - begun < 12
    assert endings(node) == [AssociationEnding.ABORTED]
    with pytest.raises(DestinationUnreachable):
        StoreAssociation(RemoteEntity("127.0.0.1", node.port or 1, "SEGNODE", "SCANNER", 2))
