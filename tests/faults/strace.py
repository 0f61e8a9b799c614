"""strace at a running role: to count its writes, and to kill it with SIGKILL at the n-th of one kind."""

import re
import signal
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

SYSCALLS = (
    "write", "writev", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "renameat", "renameat2",
    "link", "linkat", "unlink", "unlinkat", "mkdir", "sendto", "sendmsg",
)  # fmt: skip
"""Everything by which a role changes the disk or tells a peer; between two of them nothing happens."""

_SET = ",".join(f"?{name}" for name in SYSCALLS)  # "?": not every machine has every one
_CALL = re.compile(r"^(?P<tid>\d+) +(?P<name>[a-z0-9]+)\((?P<rest>.*)")
_PLACES = (
    ("log", r"node\.log"),
    ("object arriving", r"spool/incoming"),
    ("object at its address", r"spool/[0-9a-f]{2}\b"),
    ("catalogue", r"catalogue\.db"),
    ("broker", r"broker/|\.msg"),
    ("result files", r"/results"),
    ("network", r"TCP|socket:"),
)


@dataclass(frozen=True, order=True)
class Point:
    """The `n`-th `syscall` that any one thread of the role makes; in the rehearsal it touched `place`."""

    role: str
    place: str
    syscall: str
    n: int


def place_of(arguments: str) -> str:
    """What a call touched, by the path or the socket in its arguments (strace -y)."""
    return next((name for name, pattern in _PLACES if re.search(pattern, arguments)), "other")


class Attached:
    """strace on every thread of a process; `with`, then `calls`. `inject`: kill at that point."""

    def __init__(self, pid: int, log: Path, inject: Point | None = None) -> None:
        self._pid = pid
        self._log = log
        self._inject = inject
        self._strace: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Attached":
        errors = self._log.with_suffix(".err")
        with errors.open("wb") as stream:
            self._strace = subprocess.Popen(
                ["strace", "-f", "-y", "-s", "0", "-e", "signal=none", "-e", f"trace={_SET}",
                 "-o", str(self._log), *injection(self._inject), "-p", str(self._pid)],
                stdout=stream, stderr=stream,
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while b"attached" not in errors.read_bytes():
            assert self._strace.poll() is None, errors.read_text()
            assert time.monotonic() < deadline, "strace does not attach"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        """Lets go of the process; nothing more is counted or killed."""
        assert self._strace
        if self._strace.poll() is None:
            self._strace.send_signal(signal.SIGINT)
        self._strace.wait(30)

    def calls(self) -> list[tuple[str, str, str]]:
        """Every traced call: thread, name, what it touched."""
        found = (_CALL.match(line) for line in self._log.read_text(errors="replace").splitlines())
        return [(m["tid"], m["name"], place_of(m["rest"])) for m in found if m]

    def reached(self) -> str:
        """What the call touched that was killed."""
        assert self._inject
        places = [place for _, name, place in self.calls() if name == self._inject.syscall]
        return places[-1] if places else "?"


def injection(point: Point | None) -> list[str]:
    """The options that kill at the point, before the call does anything."""
    return ["-e", f"inject={point.syscall}:signal=SIGKILL:when={point.n}"] if point else []


def dying(point: Point, log: Path) -> list[str]:
    """What a role is started under to die at the point, its start included."""
    return ["strace", "-f", "-y", "-s", "0", "-e", "signal=none", "-e", f"trace={_SET}",
            "-o", str(log), *injection(point)]  # fmt: skip


def points(role: str, calls: list[tuple[str, str, str]]) -> list[Point]:
    """Every place where the role can be killed, as a rehearsal passed them."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    found = set()
    for thread, name, place in calls:
        counts[thread, name] += 1
        found.add(Point(role, place, name, counts[thread, name]))
    return sorted(found)


def spread(choices: list[Point], count: int) -> list[Point]:
    """At most `count`, evenly over places and syscalls, and within each over n: first, last, between."""
    groups: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in choices:
        if point.place not in {"log", "other"}:
            groups[point.place, point.syscall].append(point)
    chosen: list[Point] = []
    share = dict.fromkeys(groups, 0)
    while sum(share.values()) < min(count, sum(map(len, groups.values()))):
        for key in sorted(groups, key=lambda k: (share[k], k)):
            if share[key] < len(groups[key]) and sum(share.values()) < count:
                share[key] += 1
    for key, members in groups.items():
        last, wanted = len(members) - 1, share[key]
        chosen += {members[round(i * last / max(1, wanted - 1))] for i in range(wanted)}
    return sorted(chosen)
