"""Real peers for tests and benchmarks: each a process on free loopback ports, ended by its pid.

DCMTK and Orthanc leave Nagle's algorithm on unless TCP_NODELAY=1 stands in their environment, which costs
them about 40 ms an instance; a comparison without it would flatter us.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

NODELAY = os.environ | {"TCP_NODELAY": "1"}
_DICOMWEB = ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "/usr/lib/orthanc/libOrthancDicomWeb.so")


def free_port() -> int:
    """A free TCP port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_program(name: str) -> str | None:
    """Path of an outside program, also of one for root."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin")


def unpack(archive: Path, folder: Path) -> Path:
    """The archive's files below `folder`."""
    shutil.unpack_archive(archive, folder, **({} if archive.suffix == ".zip" else {"filter": "data"}))
    return folder


def run(name: str, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """A program to its end, for example dcmsend or storescu."""
    return subprocess.run(
        [find_program(name) or name, *arguments],
        env=NODELAY, capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
    )  # fmt: skip


class Peer:
    """A server process; `with` starts it, waits for its port, and ends it."""

    program = ""
    ae_title = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Program and arguments."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Returns when it accepts connections."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), env=NODELAY, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        self.stop()
        raise RuntimeError(
            f"{self.command()[0]} did not start: {(self.folder / 'log.txt').read_text()[-500:]}"
        )

    def stop(self) -> None:
        """Ends the process."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Storescp(Peer):
    """DCMTK's storage SCP; files lie in `received`."""

    program = "storescp"
    ae_title = "STORESCP"

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self._options = options
        self.received = folder / "received"

    def command(self) -> list[str]:
        self.received.mkdir(parents=True, exist_ok=True)
        return [find_program(self.program) or self.program, "-aet", self.ae_title, "-od", str(self.received),
                *self._options, str(self.port)]  # fmt: skip


class Orthanc(Peer):
    """Orthanc with DICOMweb: a PACS by C-STORE at `port` and by STOW-RS at `dicomweb`."""

    program = "Orthanc"
    ae_title = "ORTHANC"

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder)
        self.http_port = free_port()
        self._settings = settings

    @property
    def url(self) -> str:
        """Orthanc's own REST interface."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb(self) -> str:
        """Base URL of DICOMweb."""
        return f"{self.url}/dicom-web"

    def command(self) -> list[str]:
        settings = {
            "Name": "test",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "HttpPort": self.http_port,
            "DicomPort": self.port,
            "DicomAet": self.ae_title,
            "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False,
            "DicomCheckCalledAet": False,
            "StableAge": 1,
            "Plugins": [path for path in _DICOMWEB if Path(path).is_file()][:1],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        } | self._settings
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(settings))
        return [find_program(self.program) or self.program, str(file)]

    def start(self) -> None:
        super().start()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{self.url}/system", timeout=2)
            except httpx.HTTPError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError("Orthanc's HTTP server did not start")

    def instances(self) -> list[dict[str, Any]]:
        """SOP Instance UID, series and file size of what it has."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/instances?expand", timeout=60).json()
        return found

    def file(self, orthanc_id: str) -> bytes:
        """One stored instance as a file."""
        return httpx.get(f"{self.url}/instances/{orthanc_id}/file", timeout=60).content


class Redis(Peer):
    """redis-server with an append-only file; `url` for Celery."""

    program = "redis-server"

    @property
    def url(self) -> str:
        """The broker's URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        program = find_program(self.program) or self.program
        return [program, "--bind", "127.0.0.1", "--port", str(self.port),
                "--dir", str(self.folder), "--save", "", "--appendonly", "yes"]  # fmt: skip
