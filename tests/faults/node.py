"""A node whose roles are processes that may be killed, and that are started again as a supervisor would."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.catalogue.store import Catalogue
from dicom_node.records import Job
from tests.faults.model import write_thin_model
from tests.node import Node
from tests.peers import free_port

ROLES = {
    "listen": ["listen"],
    "segment": ["work", "--queue", "segment"],
    "deliver": ["work", "--queue", "deliver"],
}
_SECTIONS: dict[str, dict[str, Any]] = {
    "node": {},
    "listener": {"min_free_gb": 0},
    "completion": {"grace_s": 0.4, "poll_s": 0.1},
    "worker": {"lease_s": 3, "threads": 1},
    "models": {"folders": ["models"]},
}


def pacs(name: str, port: int, ae_title: str) -> dict[str, Any]:
    """A destination by C-STORE."""
    return {
        "name": name, "kind": "c-store", "host": "127.0.0.1", "port": port, "ae_title": ae_title,
        "timeout_s": 5,
    }  # fmt: skip


@dataclass
class Process:
    """One role while it runs."""

    role: str
    popen: subprocess.Popen[bytes]
    log_from: int
    """Where its lines in the node's log begin."""

    @property
    def pid(self) -> int:
        """The process."""
        return self.popen.pid


class RoleNode(Node):
    """The three roles of a node as processes of this test, over one data folder, with a model that is quick.

    While it runs, whatever ends is started again at once, and counted in `deaths`.
    """

    def __init__(
        self,
        folder: Path,
        destinations: list[dict[str, Any]],
        sections: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.fixed_port = free_port()
        thin = write_thin_model(folder / "models")
        merged = {name: dict(values) for name, values in _SECTIONS.items()}
        merged["listener"]["port"] = self.fixed_port
        merged["models"]["enabled"] = [thin]
        for name, values in (sections or {}).items():
            merged[name] = merged.get(name, {}) | dict(values)
        super().__init__(folder, destinations, merged)
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("SEGNODE_")}
        self._environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(folder / "tmp")}
        (folder / "tmp").mkdir()
        self.log_file = folder / "node.log"
        self.processes: dict[str, Process] = {}
        self.deaths: list[tuple[str, int, float]] = []
        self.prefixes: dict[str, list[list[str]]] = {}
        """What the next starts of a role run under, one after the other: strace."""
        self._keep = threading.Event()
        self._guard: threading.Thread | None = None
        self._opened: Catalogue | None = None

    # --- running

    def start(self) -> "RoleNode":
        """Returns when every role is up."""
        self._keep.set()
        for role in ROLES:
            self._spawn(role)
        self._guard = threading.Thread(target=self._tend, daemon=True)
        self._guard.start()
        try:
            for role in ROLES:
                self.wait_up(role)
        except AssertionError:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends every role."""
        self._keep.clear()
        if self._guard:
            self._guard.join()
        for process in self.processes.values():
            if process.popen.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.popen.wait()
        if self._opened:
            self._opened.close()

    def __enter__(self) -> "RoleNode":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _spawn(self, role: str) -> None:
        waiting = self.prefixes.get(role)
        prefix = waiting.pop(0) if waiting else []
        with self.log_file.open("ab") as log:
            log_from = log.tell()
            popen = subprocess.Popen(
                [*prefix, *self.command(*ROLES[role])],
                stdout=log, stderr=log, env=self._environment, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        self.processes[role] = Process(role, popen, log_from)

    def _tend(self) -> None:
        while self._keep.is_set():
            for role, process in list(self.processes.items()):
                status = process.popen.poll()
                if status is not None:
                    self.deaths.append((role, status, time.time()))
                    self._spawn(role)
            time.sleep(0.02)

    def kill(self, role: str) -> None:
        """SIGKILL, whatever it is doing."""
        os.kill(self.processes[role].pid, signal.SIGKILL)

    def wait_up(self, role: str, within: float = 60.0) -> int:
        """Returns the role's pid once it does its work."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            pid = self.processes[role].pid
            if self._is_up(role, pid):
                return pid
            time.sleep(0.03)
        raise AssertionError(f"{role} is not up within {within} s:\n{self.tail()}")

    def _is_up(self, role: str, pid: int) -> bool:
        if role == "listen":
            try:
                return bool(json.loads((self.settings.node.data / "listener.json").read_text())["pid"] == pid)
            except (OSError, ValueError):
                return False
        said = f'"role": "work {role}", "logger": "worker.roles", "message": "working"'
        return said.encode() in self.log_file.read_bytes()[self.processes[role].log_from :]

    def tail(self, count: int = 40) -> str:
        """The end of the log."""
        return "\n".join(self.log().splitlines()[-count:])

    # --- looking

    def catalogue(self) -> Catalogue:
        """The node's catalogue, open until the node stops."""
        if self._opened is None:
            self._opened = Catalogue(self.settings.catalogue_url, name="test", migrate=False)
        return self._opened

    def jobs(self, series: str = "") -> list[Job]:
        """Every job, or those of one series."""
        return [
            job for job in self.catalogue().jobs.listed(limit=100_000)
            if series in {"", job.series_instance_uid}
        ]  # fmt: skip

    def wait(
        self, good: Callable[[list[Job]], bool], series: Sequence[str] = (), within: float = 60.0
    ) -> list[Job]:
        """The jobs (of these series) once `good` says so of them; fails with what they are otherwise."""
        deadline = time.monotonic() + within
        while True:
            jobs = [job for job in self.jobs() if not series or job.series_instance_uid in series]
            if good(jobs):
                return jobs
            if time.monotonic() > deadline:
                said = "\n".join(f"{job.id} {job.state} {job.reason}" for job in jobs)
                raise AssertionError(f"not within {within} s; jobs:\n{said}\n{self.tail()}")
            time.sleep(0.05)

    def wait_final(self, series: Sequence[str], within: float = 60.0) -> list[Job]:
        """The jobs of these series once there is one of each and all are final."""
        return self.wait(
            lambda jobs: (
                {job.series_instance_uid for job in jobs} >= set(series)
                and all(job.state.final for job in jobs)
            ),
            series,
            within,
        )
