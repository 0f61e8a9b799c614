"""SIGKILL at the n-th write of every role: every study ends once, with the same UIDs, and nothing is lost.

SQLite's method: a rehearsal counts what each thread of a role writes, sends, syncs and renames; then the role
is killed before the first, the second ... of each kind, and the invariants are checked after every journey.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from dicom_node.archive import ReceivingArchive
from dicom_node.records import JobState
from tests.faults.campaign import Lane, choose, run_lanes
from tests.faults.conftest import Kill, soak_kills
from tests.faults.model import write_thin_model
from tests.faults.node import ROLES, pacs
from tests.faults.patients import make_patient, scan
from tests.faults.strace import Attached, Point, dying
from tests.node import Node
from tests.peers import Orthanc

pytestmark = pytest.mark.usefixtures("can_trace")

CI_KILLS = 50


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Lane]:
    """One node under fault."""
    with Lane(tmp_path) as running:
        yield running


def _campaign(folder: Path, count: int, kills: list[Kill]) -> None:
    """At least `count` more kills on two nodes; a point that a journey does not reach is made up for."""
    goal, struck = len(kills) + count, 0
    with ExitStack() as stack:
        lanes = [stack.enter_context(Lane(folder / name, name)) for name in "xy"]
        found = left = lanes[0].rehearse()
        while len(kills) < goal:
            chosen = choose(left, goal - len(kills))
            run_lanes(lanes, chosen, kills, first=struck + 1)
            struck += len(chosen)
            left = [point for point in left if point not in chosen] or found


@pytest.mark.timeout(900)
def test_killed_at_every_kind_of_write(tmp_path: Path, kills: list[Kill]) -> None:
    """SCOPE I1: listener and workers killed at every stage of the journey; two patients under way at once."""
    before = len(kills)
    _campaign(tmp_path, CI_KILLS, kills)
    made = kills[before:]
    assert {kill.role for kill in made} == {"listen", "segment", "deliver"}
    assert {kill.place for kill in made} >= {
        "object arriving", "object at its address", "catalogue", "broker", "result files", "network",
    }  # fmt: skip


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_killed_hundreds_of_times(tmp_path: Path, kills: list[Kill]) -> None:
    """SCOPE I1: the same, at nearly every single write; SEGNODE_SOAK_KILLS says how often."""
    _campaign(tmp_path, soak_kills(), kills)
    assert len(kills) >= soak_kills()


@pytest.mark.parametrize(
    ("role", "first", "again"),
    [
        ("listen", ("link", 3), [("unlink", 1), ("fdatasync", 1), ("fdatasync", 2), ("pwrite64", 4)]),
        ("segment", ("rename", 1), [("fdatasync", 1), ("pwrite64", 2)]),
        ("deliver", ("sendto", 3), [("fdatasync", 1), ("pwrite64", 2)]),
    ],
)
def test_killed_again_while_it_recovers(
    lane: Lane, kills: list[Kill], role: str, first: tuple[str, int], again: list[tuple[str, int]]
) -> None:
    """SCOPE I1: a process that dies in the middle of its work, and its successor while it cleans up."""
    for number, point in enumerate(again, 1):
        lane.node.prefixes[role] = [dying(Point(role, "", *point), lane.folder / f"again-{number}.txt")]
        before = len(lane.node.deaths)
        kill = lane.strike(number, Point(role, "", *first))
        assert kill
        assert len(lane.node.deaths) == before + 2
        kills += [kill, Kill(role, *point, "recovering", kill.seconds)]


def test_a_job_that_kills_its_workers_is_set_aside(lane: Lane) -> None:
    """SCOPE I1: three workers lost over one job end it by name; the next job is done as if nothing was."""
    at = Point("segment", "", "rename", 1)
    lane.node.prefixes["segment"] = [dying(at, lane.folder / f"poison-{n}.txt") for n in range(2)]
    poison, after = (make_patient(lane.folder / "sent", name) for name in ("poison", "after"))
    with Attached(lane.node.wait_up("segment"), lane.folder / "poison.txt", at):
        scan([poison], lane.node.fixed_port)
        (job,) = lane.node.wait_final([poison.series])
    assert job.state == JobState.FAILED
    assert "WorkerLost" in job.reason
    assert [role for role, _, _ in lane.node.deaths] == ["segment"] * 3
    scan([after], lane.node.fixed_port)
    lane.node.wait_final([after.series])
    lane.undisturbed.check(after)


def test_everything_at_once(lane: Lane, kills: list[Kill]) -> None:
    """SCOPE I1: all processes gone at the same moment, at several moments of the journey."""
    for number, delay in enumerate((0.1, 0.6, 1.1), 1):
        pair = lane.pair(number)
        at = time.time() + delay
        timer = threading.Timer(delay, lambda: [lane.node.kill(role) for role in ROLES])
        timer.start()
        scan(pair, lane.node.fixed_port)
        lane.node.wait_final([patient.series for patient in pair])
        timer.join()
        for role in ROLES:
            lane.node.wait_up(role)
        lane.node.wait_final([patient.series for patient in pair])
        lane.check(pair)
        kills += [Kill(role, "any", 1, f"all after {delay} s", lane.recovered(pair, at)) for role in ROLES]


@pytest.mark.parametrize("syscall", ["sendto", "fdatasync"])
def test_orthanc_has_every_object_once(
    tmp_path: Path, program: Callable[[str], str], kills: list[Kill], syscall: str
) -> None:
    """SCOPE I1, E1: a real PACS, the delivering worker killed before, between and after its answers."""
    program("Orthanc")
    with Orthanc(tmp_path / "orthanc") as orthanc:
        destination = pacs("orthanc", orthanc.port, orthanc.ae_title)
        with Lane(tmp_path, others=[destination]) as lane:
            for n in (2, 4):
                kill = lane.strike(n, Point("deliver", "", syscall, n))
                kills += [kill] if kill else []
            wanted = [
                item.sop_instance_uid
                for job in lane.node.jobs()
                for item in lane.node.catalogue().jobs.results(job.id)
            ]
        stored = [item["MainDicomTags"]["SOPInstanceUID"] for item in orthanc.instances()]
    assert sorted(stored) == sorted(wanted)
    assert len(wanted) == 8


def test_the_real_supervisor_brings_every_role_back(tmp_path: Path, kills: list[Kill]) -> None:
    """SCOPE I1: `segnode run`: each role killed while it works, then the whole tree, supervisor and all."""
    with ReceivingArchive(tmp_path / "pacs") as archive:
        node = Node(
            tmp_path / "node",
            [pacs("pacs", archive.port, "ARCHIVE")],
            {"models": {"folders": ["models"], "enabled": [write_thin_model(tmp_path / "node" / "models")]}},
        )
        patients = [make_patient(tmp_path / "sent", f"s{n}", n % 2) for n in range(4)]
        with node:
            for patient, role in zip(patients, ("listen", "segment", "deliver"), strict=False):
                scan([patient], node.port)
                at = time.time()
                _role(node, role).kill()
                node.finished(patients.index(patient) + 1)
                kills.append(Kill(role, "any", 1, "under segnode run", time.time() - at))
            scan([patients[3]], node.port)
            at = time.time()
            for process in _tree(node):
                process.kill()
        with node:
            jobs = node.finished(4)
        kills.append(Kill("all", "any", 1, "under segnode run", time.time() - at))
    assert [job.state for job in jobs] == [JobState.DONE] * 4
    assert len(archive.instances()) == 8
    assert {item.study_instance_uid for item in archive.instances()} == {p.study for p in patients}


def _tree(node: Node) -> list[psutil.Process]:
    """The supervisor and its children."""
    supervisor = psutil.Process(node.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def _role(node: Node, role: str) -> psutil.Process:
    """The process of a role, once it is there."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for process in _tree(node):
            if process.cmdline()[-1:] == [role]:
                return process
        time.sleep(0.05)
    raise AssertionError(f"{role} does not run")
