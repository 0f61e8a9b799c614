"""Results into real archives, and into peers that are absent, refuse, hang or lie."""

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pydicom
import pytest

from dicom_node.archive import ReceivingArchive
from dicom_node.delivery.build import build_deliverer
from dicom_node.delivery.push import parse_address, push_folder
from dicom_node.errors import (
    DeliveryFailed,
    DestinationRefused,
    DestinationUnreachable,
    SettingsInvalid,
    WritingFailed,
)
from dicom_node.records import Deliverer, ResultObject
from dicom_node.requestor import files_in
from dicom_node.settings import DestinationSettings
from dicom_node.spool import FileMeta, read_meta
from tests.peers import Orthanc, Storescp, free_port, unpack


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A real SEG and a real TID 1500 SR made by other software."""
    return unpack(shared_data / "seg_sr" / "highdicom_test_files.zip", tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def objects(results: Path) -> tuple[ResultObject, ...]:
    found: dict[str, ResultObject] = {}
    for file in files_in(results)[0]:
        kind = {"1.2.840.10008.5.1.4.1.1.66.4": "SEG", "1.2.840.10008.5.1.4.1.1.88.34": "SR"}.get(
            file.meta.sop_class_uid
        )
        meta = read_meta(file.path)[0]
        if kind and meta == file.meta and kind not in found:
            dataset = pydicom.dcmread(file.path, stop_before_pixels=True)
            data = file.path.read_bytes()
            found[kind] = ResultObject(
                kind,
                meta.sop_class_uid,
                meta.sop_instance_uid,
                dataset.SeriesInstanceUID,
                dataset.StudyInstanceUID,
                meta.transfer_syntax_uid,
                file.path.relative_to(results),
                len(data),
                hashlib.sha256(data).hexdigest(),
            )
    assert set(found) == {"SEG", "SR"}
    return found["SEG"], found["SR"]


def c_store(port: int, ae_title: str = "ANY", timeout: float = 20) -> Deliverer:
    settings = DestinationSettings(
        name="pacs", kind="c-store", host="127.0.0.1", port=port, ae_title=ae_title, timeout_s=timeout
    )
    return build_deliverer(settings, "SEGNODE")


def stow(url: str, timeout: float = 20, **more: object) -> Deliverer:
    settings = DestinationSettings(name="web", kind="stow-rs", url=url, timeout_s=timeout, **more)  # type: ignore[arg-type]
    return build_deliverer(settings, "SEGNODE")


def in_orthanc(orthanc: Orthanc, objects: tuple[ResultObject, ...]) -> dict[str, bytes]:
    """SHA-256 of the data sets of our objects as the PACS holds them, by UID."""
    held = {item["MainDicomTags"]["SOPInstanceUID"]: item["ID"] for item in orthanc.instances()}
    return {
        o.sop_instance_uid: orthanc.file(held[o.sop_instance_uid])
        for o in objects
        if o.sop_instance_uid in held
    }


def same(file: Path, held: bytes, tmp_path: Path) -> bool:
    (tmp_path / "held.dcm").write_bytes(held)
    return bool(pydicom.dcmread(file) == pydicom.dcmread(tmp_path / "held.dcm"))


@pytest.mark.parametrize("how", ["c-store", "stow-rs"])
def test_orthanc_takes_seg_and_sr_and_a_second_time_changes_nothing(
    how: str, orthanc: Orthanc, objects: tuple[ResultObject, ...], results: Path, tmp_path: Path
) -> None:
    """SCOPE G5, G7: both ways into a real PACS; sent again, it holds the same."""
    deliverer = c_store(orthanc.port, "ORTHANC") if how == "c-store" else stow(orthanc.dicomweb)
    first = deliverer.deliver(objects, results)
    assert [r.sop_instance_uid for r in first] == [o.sop_instance_uid for o in objects]
    assert {r.status for r in first} == ({"0x0000"} if how == "c-store" else {"200 stored"})
    held = in_orthanc(orthanc, objects)
    for item in objects:
        assert same(results / item.path, held[item.sop_instance_uid], tmp_path)
    count = len(orthanc.instances())
    second = deliverer.deliver(objects, results)
    assert len(second) == 2
    assert len(orthanc.instances()) == count
    assert in_orthanc(orthanc, objects) == held
    assert "answered" in deliverer.probe()


def test_storescp_gets_the_bytes(
    storescp: Storescp, objects: tuple[ResultObject, ...], results: Path, tmp_path: Path
) -> None:
    """SCOPE G5: DCMTK's archive."""
    deliverer = c_store(storescp.port)
    assert {r.status for r in deliverer.deliver(objects, results)} == {"0x0000"}
    received = {read_meta(file)[0].sop_instance_uid: file for file in storescp.received.iterdir()}
    for item in objects:
        assert same(results / item.path, received[item.sop_instance_uid].read_bytes(), tmp_path)
    assert "C-ECHO" in deliverer.probe()


def test_our_archive_holds_the_very_bytes(
    objects: tuple[ResultObject, ...], results: Path, tmp_path: Path
) -> None:
    """SCOPE G5: the demo's archive keeps what was sent, once."""
    with ReceivingArchive(tmp_path / "archive") as archive:
        deliverer = c_store(archive.port, archive.ae_title)
        deliverer.deliver(objects, results)
        deliverer.deliver(objects, results)
        assert len(archive.instances()) == 2
        for item, held in zip(objects, archive.instances(), strict=True):
            sent = (results / item.path).read_bytes()
            assert archive.file(held).read_bytes().endswith(sent[read_meta(results / item.path)[1] :])


def test_folder(objects: tuple[ResultObject, ...], results: Path, tmp_path: Path) -> None:
    """SCOPE G5: a folder holds whole files under names of their own, and no others."""
    settings = DestinationSettings(name="share", kind="folder", path=tmp_path / "share")
    deliverer = build_deliverer(settings, "SEGNODE")
    assert "can be written" in deliverer.probe()
    for _ in range(2):
        assert {r.status for r in deliverer.deliver(objects, results)} == {"written"}
    files = sorted(path for path in (tmp_path / "share").rglob("*") if path.is_file())
    assert len(files) == 2
    assert {f.read_bytes() for f in files} == {(results / o.path).read_bytes() for o in objects}
    (tmp_path / "file").touch()
    blocked = build_deliverer(settings.model_copy(update={"path": tmp_path / "file" / "x"}), "SEGNODE")
    for attempt in (lambda: blocked.deliver(objects, results), blocked.probe):
        with pytest.raises(DestinationUnreachable):
            attempt()


def test_absent(objects: tuple[ResultObject, ...], results: Path) -> None:
    """SCOPE G6: nobody listens: unreachable, worth another try."""
    port = free_port()
    for deliverer in (c_store(port), stow(f"http://127.0.0.1:{port}/dicom-web")):
        for attempt in (lambda d=deliverer: d.deliver(objects, results), deliverer.probe):
            with pytest.raises(DestinationUnreachable) as caught:
                attempt()
            assert not caught.value.permanent


class Listening:
    """A TCP server that treats each connection as told."""

    def __init__(self, treat: Callable[[socket.socket], None]) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._treat = treat
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._treat, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._server.close()


def never_answers(connection: socket.socket) -> None:
    time.sleep(20)
    connection.close()


def slams_the_door(connection: socket.socket) -> None:
    connection.close()


def talks_nonsense(connection: socket.socket) -> None:
    connection.sendall(b"220 mail.example SMTP\r\n" * 3)
    time.sleep(0.2)
    connection.close()


@pytest.mark.parametrize("treat", [never_answers, slams_the_door, talks_nonsense])
def test_a_peer_that_does_not_play(
    treat: Callable[[socket.socket], None], objects: tuple[ResultObject, ...], results: Path
) -> None:
    """SCOPE G6: silence, a closed door, another protocol: unreachable, in bounded time."""
    server = Listening(treat)
    for deliverer in (c_store(server.port, timeout=1), stow(f"http://127.0.0.1:{server.port}/x", timeout=1)):
        begun = time.monotonic()
        with pytest.raises(DestinationUnreachable):
            deliverer.deliver(objects, results)
        assert time.monotonic() - begun < 8
    server.close()


class Proxy:
    """Carries an association to a real peer and stops at a given moment, either side held open."""

    def __init__(self, port: int, stop_after: int) -> None:
        self._port = port
        self._stop_after = stop_after
        self._server = Listening(self._carry)
        self.port = self._server.port

    def _carry(self, connection: socket.socket) -> None:
        upstream = socket.create_connection(("127.0.0.1", self._port))

        def back() -> None:
            while part := upstream.recv(65536):
                connection.sendall(part)

        threading.Thread(target=back, daemon=True).start()
        carried = 0
        while carried < self._stop_after:
            part = connection.recv(min(65536, self._stop_after - carried))
            carried += len(part)
            upstream.sendall(part)
        time.sleep(20)

    def close(self) -> None:
        self._server.close()


def test_a_pacs_that_stops_reading_does_not_hold_us(storescp: Storescp, chest: Path) -> None:
    """SCOPE G6: after some kilobytes of an object nothing is read any more: unreachable in time."""
    big = pydicom.dcmread(files_in(chest)[0][0].path)
    big.PixelData = bytes(40_000_000)  # more than any socket buffer
    big.Rows = big.Columns = 4472
    folder = storescp.folder / "big"
    folder.mkdir()
    big.save_as(folder / "big.dcm")
    item = ResultObject(
        "SEG",
        big.SOPClassUID,
        big.SOPInstanceUID,
        big.SeriesInstanceUID,
        big.StudyInstanceUID,
        big.file_meta.TransferSyntaxUID,
        Path("big.dcm"),
        0,
        "",
    )
    assert c_store(storescp.port).deliver((item,), folder)[0].status == "0x0000"
    proxy = Proxy(storescp.port, 300_000)
    begun = time.monotonic()
    with pytest.raises(DestinationUnreachable):
        c_store(proxy.port, timeout=1.5).deliver((item,), folder)
    assert 1 < time.monotonic() - begun < 8
    proxy.close()


def test_a_pacs_that_refuses(tmp_path: Path, objects: tuple[ResultObject, ...], results: Path) -> None:
    """SCOPE G5: an association rejected, a SOP class not accepted: refused by name."""
    with Storescp(tmp_path / "refusing", "--refuse") as peer:
        with pytest.raises(DestinationRefused):
            c_store(peer.port).deliver(objects, results)
        with pytest.raises(DestinationRefused):
            c_store(peer.port).probe()
    labelmap = ResultObject(
        "SEG",
        "1.2.840.10008.5.1.4.1.1.66.7",
        "1.2.3.9",
        "1.2.3.4",
        "1.2.3",
        "1.2.840.10008.1.2.1",
        Path("map.dcm"),
        0,
        "",
    )
    meta = FileMeta(labelmap.transfer_syntax_uid, labelmap.sop_class_uid, labelmap.sop_instance_uid)
    (tmp_path / "map.dcm").write_bytes(meta.encoded() + bytes(100))
    with (
        Storescp(tmp_path / "old") as peer,
        pytest.raises(DestinationRefused, match="does not accept SEG") as caught,
    ):
        c_store(peer.port).deliver((labelmap,), tmp_path)
    assert caught.value.permanent


def test_a_status_is_passed_on(
    objects: tuple[ResultObject, ...], results: Path, listening: Callable[..., object]
) -> None:
    """SCOPE G6: 0xA700 from a full archive may pass later."""
    node = listening(min_free_gb=1e9)
    with pytest.raises(DestinationRefused, match="0xA700") as caught:
        c_store(node.port).deliver(objects, results)  # type: ignore[attr-defined]
    assert not caught.value.permanent


def test_a_recorded_object_that_is_gone(objects: tuple[ResultObject, ...], tmp_path: Path) -> None:
    """SCOPE G5: our own fault is not the destination's."""
    for deliverer in (c_store(free_port()), stow(f"http://127.0.0.1:{free_port()}/x")):
        with pytest.raises(WritingFailed):
            deliverer.deliver(objects, tmp_path)


Said = tuple[int, dict[str, str], bytes]


@pytest.fixture
def web() -> Iterator[Callable[[Callable[[bytes, dict[str, str]], Said]], str]]:
    """HTTP servers that answer as told; their base URL."""
    servers = []

    def start(answer: Callable[[bytes, dict[str, str]], Said]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, headers, content = answer(body, dict(self.headers))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/dicom-web"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def said(stored: list[str], failed: dict[str, int]) -> bytes:
    def item(uid: str, code: int | None) -> dict[str, object]:
        reason = {"00081197": {"vr": "US", "Value": [code]}} if code else {}
        return {"00081155": {"vr": "UI", "Value": [uid]}} | reason

    return json.dumps(
        {
            "00081199": {"vr": "SQ", "Value": [item(uid, None) for uid in stored]},
            "00081198": {"vr": "SQ", "Value": [item(uid, code) for uid, code in failed.items()]},
        }
    ).encode()


JSON = {"Content-Type": "application/dicom+json; charset=utf-8"}


@pytest.mark.parametrize(
    ("status", "error", "permanent"),
    [
        (400, DestinationRefused, False),
        (401, DestinationRefused, False),
        (403, DestinationRefused, False),
        (404, DestinationRefused, False),
        (409, DestinationRefused, True),
        (413, DestinationRefused, True),
        (415, DestinationRefused, True),
        (429, DestinationUnreachable, False),
        (500, DestinationUnreachable, False),
        (503, DestinationUnreachable, False),
        (200, DestinationUnreachable, False),
        (302, DestinationRefused, False),
    ],
)
def test_every_http_status_has_a_name(
    web: Callable[..., str],
    objects: tuple[ResultObject, ...],
    results: Path,
    status: int,
    error: type[DeliveryFailed],
    permanent: bool,
) -> None:
    """SCOPE G5: refused or unreachable; 200 with nothing said is no success, a redirect is none."""
    asked = []

    def answer(body: bytes, headers: dict[str, str]) -> Said:
        asked.append(len(body))
        return status, {"Location": "http://127.0.0.1:9/"} if status == 302 else {}, b""

    with pytest.raises(error, match=str(status)) as caught:
        stow(web(answer)).deliver(objects, results)
    assert caught.value.permanent is permanent
    assert len(asked) == 1


def test_partial_failures_are_seen(
    web: Callable[..., str], objects: tuple[ResultObject, ...], results: Path
) -> None:
    """SCOPE G5: 202 with one object failed, or one not mentioned, is not delivered; a duplicate is."""
    seg, sr = (item.sop_instance_uid for item in objects)
    with pytest.raises(DestinationRefused, match=r"SR.*0xA700"):
        stow(web(lambda *_: (202, JSON, said([seg], {sr: 0xA700})))).deliver(objects, results)
    with pytest.raises(DestinationUnreachable, match="without a word on the SR"):
        stow(web(lambda *_: (200, JSON, said([seg], {})))).deliver(objects, results)
    receipts = stow(web(lambda *_: (409, JSON, said([seg], {sr: 0x0111})))).deliver(objects, results)
    assert [r.status for r in receipts] == ["409 stored", "409 duplicate"]


def test_each_try_sends_everything_anew_with_credentials(
    web: Callable[..., str], objects: tuple[ResultObject, ...], results: Path, tmp_path: Path
) -> None:
    """SCOPE G6: after a 503 the whole body comes again."""
    bodies: list[bytes] = []
    headers: list[dict[str, str]] = []

    def answer(body: bytes, sent: dict[str, str]) -> Said:
        bodies.append(body)
        headers.append(sent)
        return (
            (503, {}, b"")
            if len(bodies) == 1
            else (200, JSON, said([o.sop_instance_uid for o in objects], {}))
        )

    (tmp_path / "password").write_text("secret\n")
    deliverer = stow(web(answer), username="node", password_file=tmp_path / "password")
    with pytest.raises(DestinationUnreachable):
        deliverer.deliver(objects, results)
    assert len(deliverer.deliver(objects, results)) == 2
    assert len(bodies[0]) == len(bodies[1]) > sum(item.size for item in objects)
    for item in objects:
        assert (results / item.path).read_bytes() in bodies[1]
    assert headers[1]["Authorization"] == "Basic bm9kZTpzZWNyZXQ="
    assert headers[1]["Accept"] == "application/dicom+json"
    assert 'type="application/dicom"' in headers[1]["Content-Type"]


def test_a_password_that_cannot_be_read(
    tmp_path: Path, objects: tuple[ResultObject, ...], results: Path
) -> None:
    """SCOPE G5: named, and nothing is sent without it."""
    with pytest.raises(DeliveryFailed, match="password"):
        stow("http://127.0.0.1:9", username="node", password_file=tmp_path / "none").deliver(objects, results)


def test_push_reports_each_file(tmp_path: Path, chest: Path) -> None:
    """SCOPE I1: sent, skipped and refused files, and progress."""
    (chest / "readme.txt").write_text("hello")
    steps: list[tuple[int, int]] = []
    with ReceivingArchive(tmp_path / "archive") as archive:
        report = push_folder(
            chest, f"ARCHIVE@127.0.0.1:{archive.port}", progress=lambda *step: steps.append(step)
        )
    (chest / "readme.txt").unlink()
    assert (report.sent, len(report.skipped), report.refused) == (30, 1, ())
    assert report.size == sum(item.size for item in archive.instances())
    assert steps[-1] == (30, 30)


@pytest.mark.parametrize(
    "text", ["PACS", "PACS@host", "@host:104", "PACS@host:0", "PACS@host:99999", "A" * 17 + "@h:1"]
)
def test_an_address_is_checked(text: str) -> None:
    """SCOPE I3: a wrong address is named with the form that is right."""
    with pytest.raises(SettingsInvalid):
        parse_address(text)
    assert parse_address("PACS@[::1]:104") == ("PACS", "::1", 104)
