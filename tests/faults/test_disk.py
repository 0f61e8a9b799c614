"""Full disks: the sender hears of it, nothing acknowledged is lost, and work goes on when there is space."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_node.errors import DeliveryFailed
from dicom_node.records import JobState
from tests.faults.campaign import Lane
from tests.faults.patients import Patient, Refused, make_patient, scan
from tests.peers import run

OUT_OF_RESOURCES = 0xA700


def _not_here(sentence: str) -> None:
    """Skips by name on a developer's machine, fails where a skip would hide a fault."""
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)


@contextmanager
def small_disk(folder: Path, megabytes: float) -> Iterator[Path]:
    """A file system of that size at the folder."""
    if os.geteuid() != 0:
        _not_here("only root can mount a small tmpfs")
    folder.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={int(megabytes * 1024)}k", "tmpfs", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        _not_here(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """A file that takes all but about `leave` bytes."""
    disk = os.statvfs(folder)
    ballast = folder / "ballast"
    with ballast.open("ab") as file:
        try:
            while os.statvfs(folder).f_bavail * disk.f_frsize > leave:
                free = os.statvfs(folder).f_bavail * disk.f_frsize
                os.write(file.fileno(), bytes(min(free - leave, 1 << 16)))
        except OSError:
            pass
    return ballast


def send_once(patient: Patient, port: int) -> int | None:
    """One try; the status of the first refusal, None where the node did not even say so."""
    try:
        patient.send(port)
    except Refused as refused:
        return int(refused.args[1])
    except (DeliveryFailed, OSError):
        return None
    return 0


def test_nearly_full_is_refused_by_name(tmp_path: Path, program: Callable[[str], str]) -> None:
    """SCOPE A1, I1: 0xA700 below listener.min_free_gb, seen by our sender and by DCMTK's; resent later."""
    program("storescu")
    sections = {"node": {"data": str(tmp_path / "disk" / "data")}, "listener": {"min_free_gb": 0.01}}
    with small_disk(tmp_path / "disk", 40) as disk, Lane(tmp_path, sections=sections) as lane:
        before, after = (make_patient(tmp_path / "sent", name) for name in ("before", "after"))
        scan([before], lane.node.fixed_port)
        ballast = fill(disk, leave=9_000_000)
        assert send_once(after, lane.node.fixed_port) == OUT_OF_RESOURCES
        said = run("storescu", "-v", "127.0.0.1", str(lane.node.fixed_port), str(after.files[0].path))
        assert "OutOfResources" in said.stdout + said.stderr
        assert {row.name for row in lane.node.catalogue().arrivals.refusals()} == {"DiskNearlyFull"}
        ballast.unlink()
        scan([after], lane.node.fixed_port)
        lane.node.wait_final([before.series, after.series])
        lane.check([before, after])


@pytest.mark.parametrize("leave", [0, 150_000])
def test_full_to_the_last_byte(tmp_path: Path, leave: int) -> None:
    """SCOPE I1: no reserve left: what is not safe is not acknowledged, wherever the disk ends.

    An object whose row found no space keeps its second name until the listener's next start, which adopts it.
    """
    sections = {"node": {"data": str(tmp_path / "disk" / "data")}}
    with small_disk(tmp_path / "disk", 40) as disk, Lane(tmp_path, sections=sections) as lane:
        before, after = (make_patient(tmp_path / "sent", name) for name in ("before", "after"))
        scan([before], lane.node.fixed_port)
        lane.node.wait_final([before.series])
        ballast = fill(disk, leave)
        assert send_once(after, lane.node.fixed_port) in {OUT_OF_RESOURCES, 0x0110, None}
        assert len(after.acknowledged) < len(after.files)
        ballast.unlink()
        scan([after], lane.node.fixed_port)
        lane.node.wait_final([after.series])
        lane.node.kill("listen")
        lane.check([before, after])


def test_results_wait_for_space(tmp_path: Path) -> None:
    """SCOPE I1: no space for results: the job is postponed by name, and done once there is space."""
    with small_disk(tmp_path / "node" / "data" / "results", 4) as disk, Lane(tmp_path) as lane:
        patient = make_patient(tmp_path / "sent", "results")
        ballast = fill(disk, leave=0)
        scan([patient], lane.node.fixed_port)
        (job,) = lane.node.wait(lambda jobs: bool(jobs) and jobs[0].postponements > 0, [patient.series])
        shown = lane.node.json("jobs", "show", str(job.id))
        (postponed, *_) = [line for line in shown["history"] if line["event"] == "postponed"]
        assert postponed["state"] == JobState.READY
        assert "No space left" in postponed["reason"]
        ballast.unlink()
        lane.node.wait_final([patient.series])
        lane.check([patient])
