"""Whether the machine can carry the node: disk, port, libraries, clock, limits."""

import fcntl
import os
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from dicom_node.settings import Settings
from worker.cli.checks.findings import Finding, error, ok, warning

_GB = 1e9
_FILES_PER_ASSOCIATION = 4
_FILES_BESIDES = 128
_OLDEST_CLOCK = datetime(2025, 1, 1, tzinfo=UTC)
_IN_MEMORY = {"tmpfs", "ramfs"}
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"}


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def data_folder(settings: Settings) -> Iterator[Finding]:
    """Whether the data folder takes files, syncs them to a real disk, and has room."""
    folder = existing(settings.node.data)
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"segnode")
            probe.flush()
            start = time.perf_counter()
            os.fsync(probe.fileno())
            milliseconds = (time.perf_counter() - start) * 1000
    except OSError as failure:
        remedy = "node.data must name a folder on a local disk that this user may write."
        yield error("data folder", f"{folder} does not take files: {failure.strerror}.", remedy)
        return
    where = str(settings.node.data) if folder == settings.node.data else f"{settings.node.data} (to be made)"
    yield ok("data folder", f"{where} takes files; fsync took {milliseconds:.1f} ms.")
    kind = _file_system(folder)
    if kind in _IN_MEMORY | _REMOTE:
        why = "is lost at a power cut" if kind in _IN_MEMORY else "may lose what it acknowledged"
        yield warning("data folder", f"It lies on {kind}, which {why}.", "Use a local disk for node.data.")
    yield _room(settings.listener.min_free_gb, shutil.disk_usage(folder).free / _GB)


def _room(least: float, free: float) -> Finding:
    if free < least:
        sentence = f"{free:.1f} GB are free; below {least:g} GB every object is refused (0xA700)."
        return error("disk", sentence, "Free disk space, or lower listener.min_free_gb.")
    if free < 4 * least:
        sentence = f"{free:.1f} GB are free; at {least:g} GB objects are refused."
        return warning("disk", sentence, "Free disk space soon.")
    return ok("disk", f"{free:.0f} GB are free.")


def _file_system(folder: Path) -> str:
    """Type of the file system that holds the folder, "" where the system does not say (Linux only)."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    except OSError:
        return ""
    inside = [(len(mount[1]), mount[2]) for mount in mounts if folder.resolve().is_relative_to(mount[1])]
    return max(inside, default=(0, ""))[1]


def running(settings: Settings) -> bool:
    """Whether a listener of this data folder runs: it holds the lock of its slot."""
    for path in (settings.node.data / "locks").glob("listen-*.lock"):
        with path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def listener_port(settings: Settings) -> Iterator[Finding]:
    """Whether the listener's port is free, or in use by this node."""
    host, port = settings.listener.host, settings.listener.port
    try:
        with socket.create_server((host, port)):
            pass
    except PermissionError:
        remedy = "Take a port from 1024 on, or give the service CAP_NET_BIND_SERVICE."
        yield error("listener", f"This user may not listen on port {port}.", remedy)
    except OSError as failure:
        if running(settings):
            yield ok("listener", f"It runs on {host} port {port}.")
        else:
            remedy = "Stop the other program, or change listener.port or listener.host."
            yield error("listener", f"{host} port {port} cannot be used: {failure.strerror}.", remedy)
    else:
        yield ok("listener", f"{host} port {port} is free.")


def engines(settings: Settings) -> Iterator[Finding]:
    """Whether an inference engine can be loaded."""
    wanted = settings.worker.engine
    working = []
    for kind in ("openvino", "onnxruntime") if wanted == "auto" else (wanted,):
        try:
            import_module(kind)
            working.append(kind)
        except (ImportError, OSError) as failure:
            yield warning(f"engine {kind}", f"It cannot be loaded: {failure}.", f"pip install {kind}")
    if working:
        yield ok("engines", f"{' and '.join(working)} can be loaded.")
    else:
        yield error("engines", "None can be loaded: nothing can be segmented.", "Install segnode again.")


def clock(_settings: Settings) -> Iterator[Finding]:
    """Whether the clock is plausible and, where systemd keeps it, synchronised."""
    now = datetime.now(UTC)
    timesync = Path("/run/systemd/timesync")
    if now < _OLDEST_CLOCK:
        yield error("clock", f"It says {now:%Y-%m-%d}.", "Set the clock.")
    elif timesync.is_dir() and not (timesync / "synchronized").exists():
        yield warning(
            "clock", "It is not synchronised.", "timedatectl set-ntp true, or another time service."
        )
    else:
        yield ok("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC.")


def open_files(settings: Settings) -> Iterator[Finding]:
    """Whether the process may open as many files as its associations need."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _FILES_BESIDES + _FILES_PER_ASSOCIATION * settings.listener.max_associations
    if allowed < needed:
        remedy = f"ulimit -n {max(needed, 4096)}, or LimitNOFILE= of the service."
        yield warning("open files", f"{allowed} are allowed, {needed} may be needed.", remedy)
    else:
        yield ok("open files", f"{allowed} are allowed.")
