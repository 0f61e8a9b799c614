"""How fast objects come in: our listener, DCMTK storescp and Orthanc, the same files from the same dcmsend.

Both peers run with TCP_NODELAY=1. Timed from dcmsend's first C-STORE request to its last response. Ours
answers after fsync and ledger row, and so does "pynetdicom", its own association server before our spool and
catalogue; Orthanc syncs its files but not its database; storescp syncs nothing.
"disk" is the temporary folder, "memory" is /dev/shm, where no fsync costs anything. "floor" writes the same
bytes with fsync of file and folder and does nothing else.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from pynetdicom import AE, _config, evt

from dicom_node.catalogue.store import Catalogue
from dicom_node.delivery.push import push_folder
from dicom_node.listener import NodeListener, instance_from, supported_contexts
from dicom_node.requestor import files_in
from dicom_node.settings import ListenerSettings
from dicom_node.spool import FileMeta, Spool, read_meta
from tests.bench.series import ct_series
from tests.peers import NODELAY, Orthanc, Peer, Storescp, find_program, free_port

_LOG = """
log4cplus.rootLogger = INFO, console
log4cplus.appender.console = log4cplus::ConsoleAppender
log4cplus.appender.console.layout = log4cplus::PatternLayout
log4cplus.appender.console.layout.ConversionPattern = %D{%H:%M:%S.%q} %m%n
"""
_STAMP = re.compile(
    r"^(\d\d:\d\d:\d\d\.\d+) (Sending C-STORE Request|Received C-STORE Response \(Success\))", re.M
)


class Segnode(Peer):
    """Our listener with the catalogue, in a process of its own."""

    program = sys.executable
    ae_title = "SEGNODE"
    how = "--serve"

    def command(self) -> list[str]:
        place = [str(self.folder), "--port", str(self.port)]
        return [self.program, "-m", "tests.bench.ingest", self.how, *place]

    def start(self) -> None:
        """Runs from the repository's root, so that the packages are found."""
        os.environ["PYTHONPATH"] = NODELAY["PYTHONPATH"] = str(Path(__file__).parents[2])
        super().start()


class Pynetdicom(Segnode):
    """The same spool and catalogue behind pynetdicom's own association server."""

    how = "--serve-pynetdicom"


class Forking(Storescp):
    """storescp with a process for each association."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "--fork")


def serve(folder: Path, port: int) -> None:
    """Our listener until it is ended."""
    catalogue = Catalogue(f"sqlite:///{folder / 'catalogue.db'}")
    spool = Spool(folder / "spool", folder / "quarantine")
    listener = NodeListener(ListenerSettings(port=port, min_free_gb=0), "SEGNODE", spool, catalogue.arrivals)
    listener.start()
    threading.Event().wait()


def serve_pynetdicom(folder: Path, port: int) -> None:
    """What the listener would be without an acceptor of its own: same durability, no limits on peers."""
    catalogue = Catalogue(f"sqlite:///{folder / 'catalogue.db'}")
    spool = Spool(folder / "spool", folder / "quarantine")

    def store(event: evt.Event) -> int:
        request = event.request
        syntax, sop_class = str(event.context.transfer_syntax), str(request.AffectedSOPClassUID)
        meta = FileMeta(syntax, sop_class, str(request.AffectedSOPInstanceUID))
        stored = spool.store(meta, [event.encoded_dataset(include_meta=False)])
        catalogue.arrivals.record(instance_from(spool.path(stored.path), stored, None))
        return 0

    _config.LOG_HANDLER_LEVEL = "none"
    entity = AE("SEGNODE")
    entity.supported_contexts = list(supported_contexts().values())
    entity.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])


def rows(slices: int = 300) -> list[dict[str, Any]]:
    """One row for each receiver, place and number of associations."""
    parts = {1: [ct_series(slices)], 4: _dealt(ct_series(slices), 4)}
    found: list[dict[str, Any]] = []
    for place, root in (("disk", None), ("memory", "/dev/shm")):
        if root and not os.access(root, os.W_OK):
            continue
        for number, folders in parts.items():
            with _folder(root) as folder:
                found.append(_row("floor", place, number, _floor(folder, folders)))
            for name, kind in _RECEIVERS:
                if not find_program(kind.program):
                    found.append({"receiver": f"{name} (absent)", "place": place, "associations": number})
                    continue
                with _folder(root) as folder, kind(folder / "peer") as peer:
                    found.append(_row(name, place, number, _timed(peer, folders, folder)))
    return _with_ratios(found) + _senders(parts[1][0])


@dataclass(frozen=True)
class Measured:
    """One run; `cpu`: the receiver's seconds."""

    seconds: float
    cpu: float
    files: int
    size: int

    def figures(self) -> dict[str, float]:
        """Speed."""
        return {"instances/s": self.files / self.seconds, "MB/s": self.size / self.seconds / 1e6}


_RECEIVERS: tuple[tuple[str, type[Peer]], ...] = (
    ("segnode", Segnode), ("pynetdicom", Pynetdicom), ("storescp", Forking), ("orthanc", Orthanc),
)  # fmt: skip


def _row(name: str, place: str, associations: int, measured: Measured) -> dict[str, Any]:
    cost = {"CPU ms/instance": measured.cpu / measured.files * 1e3}
    return {"receiver": name, "place": place, "associations": associations} | measured.figures() | cost


def _with_ratios(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    measured = [row for row in found if "instances/s" in row]
    speed = {(r["receiver"], r["place"], r["associations"]): r["instances/s"] for r in measured}
    for row in measured:
        for other in ("storescp", "orthanc", "pynetdicom", "floor"):
            if reference := speed.get((other, row["place"], row["associations"])):
                row[f"x {other}"] = row["instances/s"] / reference
    return found


def _timed(peer: Peer, folders: list[Path], folder: Path) -> Measured:
    """The folders at once, an association for each."""
    config = folder / "log.cfg"
    config.write_text(_LOG)
    call = [
        find_program("dcmsend") or "dcmsend",
        "-lc",
        str(config),
        "-aec",
        peer.ae_title,
        "+sd",
        "127.0.0.1",
    ]
    stamps, stored = [], 0
    with CpuMeter(peer.pid) as meter:
        senders = [
            subprocess.Popen(
                [*call, str(peer.port), str(part)],
                env=NODELAY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for part in folders
        ]  # fmt: skip
        for sender in senders:
            for stamp, what in _STAMP.findall(sender.communicate(timeout=600)[0]):
                stamps.append(datetime.strptime(stamp, "%H:%M:%S.%f"))
                stored += what.startswith("Received")
    files = [path for part in folders for path in part.iterdir()]
    if stored != len(files):
        raise RuntimeError(f"{peer.ae_title} stored {stored} of {len(files)} files")
    seconds = (max(stamps) - min(stamps)).total_seconds()
    return Measured(seconds, meter.seconds, stored, sum(path.stat().st_size for path in files))


class CpuMeter:
    """CPU seconds of a process and of the children that it forks, also of those that end meanwhile."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._latest: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.seconds = 0.0

    def __enter__(self) -> "CpuMeter":
        self._sample()
        self._before = sum(self._latest.values())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()
        self.seconds = sum(self._latest.values()) - self._before

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self._sample()

    def _sample(self) -> None:
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                self._latest[process.pid] = sum(process.cpu_times()[:2])
            except psutil.NoSuchProcess:
                continue


def _floor(folder: Path, folders: list[Path]) -> Measured:
    """The spool alone: no network, no ledger."""
    spool = Spool(folder / "spool", folder / "quarantine")
    loaded = [[(read_meta(path), path.read_bytes()) for path in part.iterdir()] for part in folders]

    def store(files: list[tuple[tuple[FileMeta, int], bytes]]) -> None:
        for (meta, offset), data in files:
            spool.store(meta, [memoryview(data)[offset:]])

    threads = [threading.Thread(target=store, args=(files,)) for files in loaded]
    begun, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    size = sum(len(data) for files in loaded for _, data in files)
    return Measured(time.perf_counter() - begun, time.process_time() - cpu, sum(map(len, loaded)), size)


def _senders(source: Path) -> list[dict[str, Any]]:
    """Our requestor beside dcmsend, both to storescp."""
    if not find_program("storescp"):
        return []
    found = []
    for name in ("dcmsend", "segnode push"):
        with _folder(None) as folder, Forking(folder / "peer") as peer:
            if name == "dcmsend":
                measured = _timed(peer, [source], folder)
            else:
                report = push_folder(source, f"{peer.ae_title}@127.0.0.1:{peer.port}")
                measured = Measured(report.seconds, 0, report.sent, report.size)
        found.append({"sender": name, "place": "disk", "associations": 1} | measured.figures())
    return found


def _dealt(source: Path, number: int) -> list[Path]:
    """The files dealt out to several folders, as links."""
    folders = [source.parent / f"{source.name}-part{index}" for index in range(number)]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    for index, file in enumerate(files_in(source)[0]):
        link = folders[index % number] / file.path.name
        if not link.exists():
            link.hardlink_to(file.path)
    return folders


@contextmanager
def _folder(root: str | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="segnode-ingest-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--serve-pynetdicom", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.port or free_port())
    if arguments.serve_pynetdicom:
        serve_pynetdicom(arguments.serve_pynetdicom, arguments.port or free_port())
    found = rows(arguments.slices)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        from tests.bench.__main__ import show

        show("ingest", found)


if __name__ == "__main__":
    main()
