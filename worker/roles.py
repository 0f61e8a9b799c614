"""What each process of a node does: listen, segment, deliver, or keep the others running."""

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.errors import CatalogueUnavailable
from dicom_node.settings import Settings
from dicom_node.writing.results import warm_up
from worker.tasks import register
from worker.wiring import build_listener, build_parts

log = logging.getLogger(__name__)

_RECONCILE_S = 1.0
_PR_SET_PDEATHSIG = 1


def listen(settings: Settings, stop: threading.Event) -> None:
    """Receives studies and decides when they are whole, until `stop`.

    `listener.json` in the data folder names the port while it listens (a configured port 0 takes a free one).
    """
    parts, _ = build_parts(settings, "listen")
    listener, intake = build_listener(parts)
    listener.start()
    announcement = settings.node.data / "listener.json"
    announcement.write_text(json.dumps({"port": listener.port, "pid": os.getpid()}), "utf-8")
    next_reconcile = 0.0
    try:
        while not stop.wait(settings.completion.poll_s):
            try:
                if intake.tick():
                    parts.reconciler.dispatch()
                if time.monotonic() >= next_reconcile:
                    next_reconcile = time.monotonic() + _RECONCILE_S
                    parts.reconciler.reconcile()
                    parts.reconciler.dispatch()
            except CatalogueUnavailable as error:
                log.error("catalogue unavailable", extra={"reason": error.reason()})  # noqa: TRY400
                stop.wait(_RECONCILE_S)
    finally:
        announcement.unlink(missing_ok=True)
        listener.stop()
        parts.close()


def work(settings: Settings, queue: str, stop: threading.Event | None = None) -> None:
    """Takes jobs from one queue until SIGTERM, the running one finished first."""
    parts, app = build_parts(settings, f"work-{queue}")
    register(app, parts)
    done = stop or threading.Event()
    if queue == "segment":
        warm_up()
        for package in parts.packages():
            parts.engine(package)

    def reconcile() -> None:
        while not done.wait(_RECONCILE_S):
            try:
                parts.reconciler.reconcile()
                parts.reconciler.dispatch()
            except CatalogueUnavailable as error:
                log.error("catalogue unavailable", extra={"reason": error.reason()})  # noqa: TRY400

    thread = threading.Thread(target=reconcile, name="reconciler", daemon=True)
    thread.start()
    pool = (
        ["--pool=solo"] if queue == "segment" else ["--pool=threads", f"-c{settings.worker.deliver_threads}"]
    )
    log.info("working", extra={"queue": queue, "owner": parts.owner})
    try:
        app.worker_main(
            ["--quiet", "worker", *pool, f"--queues={queue}", f"--hostname={queue}-{os.getpid()}@%h",
             "--loglevel=WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        )  # fmt: skip
    finally:
        done.set()
        thread.join()
        parts.close()


@dataclass
class _Child:
    arguments: list[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    wait_s: float = 0.0
    restarts: int = 0


@dataclass
class Supervisor:
    """Runs every role as a process of its own and starts again what ends.

    A role that ends within ten seconds of its start waits before the next one, half a second at first, half
    a minute at most. Children get SIGTERM when the supervisor ends, however it ends (Linux).
    """

    config: Path | None
    roles: Sequence[Sequence[str]]
    _children: list[_Child] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Keeps the roles running until `stop`, then ends them."""
        config = ["--config", str(self.config)] if self.config else []
        command = [sys.executable, "-m", "worker.cli", *config]
        self._children = [_Child([*command, *role]) for role in self.roles]
        try:
            while not stop.is_set():
                for child in self._children:
                    self._tend(child)
                stop.wait(0.1)
        finally:
            self._end()

    def _tend(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is not None and child.process.poll() is None:
            return
        if child.process is not None:
            short = now - child.started < 10
            child.wait_s = min(30.0, child.wait_s * 2 or 0.5) if short else 0.0
            log.error(
                "process ended, starting again",
                extra={
                    "role": child.arguments[-1],
                    "status": child.process.returncode,
                    "wait_s": child.wait_s,
                },
            )
            child.process, child.started = None, now + child.wait_s
        if now >= child.started:
            child.started = now
            child.process = subprocess.Popen(child.arguments, preexec_fn=_die_with_parent)  # noqa: PLW1509

    def _end(self) -> None:
        running = [
            child.process for child in self._children if child.process and child.process.poll() is None
        ]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + 20
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
