"""The kill campaign: a rehearsal that counts the writes of every role, then one journey for each kill."""

import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.archive import ReceivingArchive
from tests.faults.conftest import Kill
from tests.faults.invariants import check
from tests.faults.node import ROLES, RoleNode, pacs
from tests.faults.patients import Patient, make_patient, scan
from tests.faults.strace import Attached, Point, points, spread

SHARES = {"listen": 0.4, "segment": 0.35, "deliver": 0.25}


@dataclass
class Lane:
    """One node with its PACS and the patients that went through it."""

    folder: Path
    name: str
    sections: dict[str, dict[str, object]] = field(default_factory=dict)
    patients: list[Patient] = field(default_factory=list)

    def __enter__(self) -> "Lane":
        self.archive = ReceivingArchive(self.folder / "pacs")
        self.archive.start()
        self.node = RoleNode(
            self.folder / "node", [pacs("pacs", self.archive.port, "ARCHIVE")], self.sections
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.node.stop()
        self.archive.stop()

    def pair(self, number: int) -> list[Patient]:
        """Two new patients."""
        made = [make_patient(self.folder / "sent", f"{self.name}{number}{x}", i) for i, x in enumerate("ab")]
        self.patients += made
        return made

    def journey(self, number: int) -> list[Patient]:
        """Two patients at once from scanner to PACS, whatever happens meanwhile."""
        pair = self.pair(number)
        scan(pair, self.node.fixed_port, everything=number % 2 == 0)
        self.node.wait_final([patient.series for patient in pair])
        return pair

    def rehearse(self) -> list[Point]:
        """An undisturbed journey; every place where a role could have been killed."""
        found: list[Point] = []
        traces = [Attached(self.node.wait_up(role), self.folder / f"rehearsal-{role}.txt") for role in ROLES]
        for trace in traces:
            trace.__enter__()
        pair = self.journey(0)
        for trace, role in zip(traces, ROLES, strict=True):
            trace.__exit__()
            found += points(role, trace.calls())
        check(self.node, self.archive, pair)
        return found

    def strike(self, number: int, point: Point) -> Kill | None:
        """One journey with a kill at the point; None where the journey does not come to it."""
        pid = self.node.wait_up(point.role)
        before = len(self.node.deaths)
        with Attached(pid, self.folder / f"kill-{number}.txt", point) as trace:
            pair = self.journey(number)
        deaths = self.node.deaths[before:]
        self.node.wait_up(point.role)
        check(self.node, self.archive, pair)
        if not deaths:
            return None
        ((role, status, at),) = deaths
        assert (role, status) == (point.role, -9)
        series = {patient.series for patient in pair}
        end = max(job.updated_at.timestamp() for job in self.node.jobs() if job.series_instance_uid in series)
        return Kill(role, point.syscall, point.n, trace.reached(), max(0.0, end - at))


def choose(found: list[Point], count: int) -> list[Point]:
    """`count` points, each role with its share."""
    return [
        point
        for role, share in SHARES.items()
        for point in spread([item for item in found if item.role == role], round(count * share))
    ]


def run_lanes(lanes: list[Lane], chosen: list[Point]) -> list[Kill]:
    """Strikes at every point, the lanes side by side."""
    waiting = deque(enumerate(chosen, 1))
    kills: list[Kill] = []
    failures: list[str] = []

    def run(lane: Lane) -> None:
        while waiting and not failures:
            number, point = waiting.popleft()
            try:
                kill = lane.strike(number, point)
            except Exception as error:
                failures.append(f"{lane.name} {number} {point}: {error}")
            else:
                kills.extend([kill] if kill else [])

    threads = [threading.Thread(target=run, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, "\n\n".join(failures)
    return kills
