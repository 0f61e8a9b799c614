"""The kill campaign: a rehearsal that counts the writes of every role, then one journey for each kill."""

import tempfile
import threading
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicom_node.archive import ReceivingArchive
from dicom_node.reading import read_series
from models.registry import Registry
from tests.faults.conftest import Kill
from tests.faults.invariants import check, only_job
from tests.faults.node import ROLES, RoleNode, pacs
from tests.faults.patients import Patient, make_patient, scan
from tests.faults.strace import Attached, Point, points, spread
from worker.engines.choose import open_engine
from worker.pipeline import Order, Stopwatch, segment

SHARES = {"listen": 0.4, "segment": 0.35, "deliver": 0.25}


class Undisturbed:
    """The same work in this process, where nobody is killed: what a result must be, to the last byte."""

    def __init__(self, node: RoleNode) -> None:
        self._node = node
        worker, models = node.settings.worker, node.settings.models
        self._package = Registry(models.folders).get(models.enabled[0])
        self._engine = open_engine(self._package, worker.engine, worker.threads)

    def close(self) -> None:
        """Closes the engine."""
        self._engine.close()

    def check(self, patient: Patient) -> None:
        """The recorded results have the UIDs and the bytes of an undisturbed run."""
        job = only_job(self._node, patient)
        with tempfile.TemporaryDirectory() as folder:
            order = Order(
                self._package, self._engine, patient.content, job.completed_at or job.created_at,
                Path(folder), self._node.settings.node.name,
            )  # fmt: skip
            source = read_series([file.path for file in patient.files])
            wanted = segment(source, order, Stopwatch()).objects
        found = self._node.catalogue().jobs.results(job.id)
        assert [(o.kind, o.sop_instance_uid, o.digest) for o in found] == [
            (o.kind, o.sop_instance_uid, o.digest) for o in wanted
        ]


@dataclass
class Lane:
    """One node with its PACS, and with `others`."""

    folder: Path
    name: str = "x"
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    others: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> "Lane":
        self.archive = ReceivingArchive(self.folder / "pacs")
        self.archive.start()
        destinations = [pacs("pacs", self.archive.port, "ARCHIVE"), *self.others]
        self.node = RoleNode(self.folder / "node", destinations, self.sections).start()
        self.undisturbed = Undisturbed(self.node)
        return self

    def __exit__(self, *_: object) -> None:
        self.undisturbed.close()
        self.node.stop()
        self.archive.stop()

    def pair(self, number: int) -> list[Patient]:
        """Two new patients."""
        return [make_patient(self.folder / "sent", f"{self.name}{number}{x}", i) for i, x in enumerate("ab")]

    def check(self, pair: list[Patient]) -> None:
        """Every invariant."""
        check(self.node, self.archive, pair)
        for patient in pair:
            self.undisturbed.check(patient)

    def journey(self, number: int) -> list[Patient]:
        """Two patients at once from scanner to PACS, whatever happens meanwhile."""
        pair = self.pair(number)
        scan(pair, self.node.fixed_port, everything=number % 2 == 0)
        self.node.wait_final([patient.series for patient in pair])
        return pair

    def rehearse(self) -> list[Point]:
        """An undisturbed journey; every place where a role could have been killed."""
        found: list[Point] = []
        with ExitStack() as stack:
            traces = {
                role: stack.enter_context(
                    Attached(self.node.wait_up(role), self.folder / f"rehearsal-{role}.txt")
                )
                for role in ROLES
            }
            pair = self.journey(0)
        for role, trace in traces.items():
            found += points(role, trace.calls())
        self.check(pair)
        return found

    def strike(self, number: int, point: Point) -> Kill | None:
        """One journey with a kill at the point; None where the journey does not come to it.

        Where `node.prefixes` say so, what is started again dies again.
        """
        pid = self.node.wait_up(point.role)
        before = len(self.node.deaths)
        with Attached(pid, self.folder / f"kill-{number}.txt", point) as trace:
            pair = self.journey(number)
        deaths = self.node.deaths[before:]
        self.node.wait_up(point.role)
        self.check(pair)
        if not deaths:
            return None
        assert {(role, status) for role, status, _ in deaths} == {(point.role, -9)}
        seconds = self.recovered(pair, since=deaths[0][2])
        return Kill(point.role, point.syscall, point.n, trace.reached(), seconds)

    def recovered(self, pair: list[Patient], since: float) -> float:
        """Seconds from `since` to the end of the last job."""
        ends = [only_job(self.node, patient).updated_at.timestamp() for patient in pair]
        return max(0.0, max(ends) - since)


def choose(found: list[Point], count: int) -> list[Point]:
    """About `count` points, each role with its share."""
    return [
        point
        for role, share in SHARES.items()
        for point in spread([item for item in found if item.role == role], max(1, round(count * share)))
    ]


def run_lanes(lanes: list[Lane], chosen: list[Point], kills: list[Kill], first: int = 1) -> None:
    """Strikes at every point, the lanes side by side; journeys, and their patients, count from `first`.

    Each kill is noted in `kills` as soon as everything holds after it.
    """
    waiting = deque(enumerate(chosen, first))
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
