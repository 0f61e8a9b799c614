"""The main job, shown on one machine: a series goes in by C-STORE, verified objects arrive in an archive.

Everything is real: a node as `segnode run` starts it, with its Celery workers and broker, and an archive that
receives. Only the archive lives in this process; all of it ends with the demonstration.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicom_node.archive import ReceivingArchive
from dicom_node.catalogue.store import Catalogue
from dicom_node.delivery.push import push_folder
from dicom_node.phantom_series import write_ct_series
from dicom_node.reading import read_series
from dicom_node.records import Job, JobState, StoredInstance
from dicom_node.segmentation_reader import read_segmentation
from dicom_node.settings import Settings, load_settings
from models.anatomy import Body
from models.labels import LabelMap
from models.measurements import measure
from models.metrics import dice
from models.phantom import LEFT_LUNG, RIGHT_LUNG, PhantomSpec, thorax_phantom
from models.picture import overlay_picture
from worker.errors import StageFailed

_START_S = 90.0
_FINISH_S = 900.0
_LEAST_DICE = 0.9


@dataclass
class Demonstration:
    """What happened, stage by stage."""

    output: Path
    stages: dict[str, float] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    agreement: dict[str, float] = field(default_factory=dict)
    """With a phantom: Dice of each segment as received with what the phantom is made of."""

    def report(self) -> dict[str, Any]:
        """The summary as JSON shows it."""
        return {"output": str(self.output), "seconds": self.stages, "jobs": self.jobs, "dice": self.agreement}

    @property
    def passed(self) -> bool:
        """Whether a series was segmented, every job ended well, and a phantom's lungs were found."""
        states = [job["state"] for job in self.jobs]
        good = all(value >= _LEAST_DICE for value in self.agreement.values())
        return JobState.DONE in states and JobState.FAILED not in states and good


def demonstrate(source: Path | None, output: Path, tell: Callable[[str], None]) -> Demonstration:
    """Runs the demonstration with the series in `source`, or with a phantom; `tell` hears of every stage.

    Raises StageFailed, naming the stage, where one does not finish.
    """
    output.mkdir(parents=True, exist_ok=True)
    result = Demonstration(output)
    with tempfile.TemporaryDirectory(prefix="segnode-demo-") as scratch:
        folder = Path(scratch)
        reference = None
        if source is None:
            with _stage(result, "make the phantom", tell):
                source, reference = _phantom(folder / "phantom")
        with ReceivingArchive(folder / "archive") as archive:
            settings = _configure(folder, archive)
            with _node(folder, settings, result, tell) as port:
                with _stage(result, "send by C-STORE", tell):
                    push_folder(source, f"{settings.node.ae_title}@127.0.0.1:{port}")
                _follow(settings, result, tell)
            with _stage(result, "verify what arrived", tell):
                _examine(settings, archive, result)
                if reference is not None:
                    result.agreement = _compared(output / "seg.dcm", reference)
    (output / "summary.json").write_text(json.dumps(result.report(), indent=2) + "\n", "utf-8")
    return result


@contextmanager
def _stage(result: Demonstration, name: str, tell: Callable[[str], None]) -> Iterator[None]:
    tell(f"{name} ...")
    start = time.perf_counter()
    yield
    result.stages[name] = round(time.perf_counter() - start, 3)


def _phantom(folder: Path) -> tuple[Path, LabelMap]:
    """A phantom series on disk, and its lungs as they are."""
    spec = PhantomSpec(shape=(120, 512, 512), spacing_mm=(2.5, 0.74, 0.74), body=Body(seed=1))
    phantom = thorax_phantom(spec)
    write_ct_series(phantom.volume, folder)
    return folder, LabelMap(phantom.labels, phantom.volume.geometry, ())


def _compared(segmentation: Path, reference: LabelMap) -> dict[str, float]:
    """Dice of each segment as received with the reference; 0 for lungs of which nothing arrived."""
    names = {LEFT_LUNG: "Left lung", RIGHT_LUNG: "Right lung"}
    if not segmentation.is_file():
        return dict.fromkeys(names.values(), 0.0)
    received = read_segmentation(segmentation, reference.geometry)
    numbers = {label.name: label.number for label in received.labels}
    return {
        name: round(dice(received.array == numbers.get(name, -1), reference.array == number, 1), 4)
        for number, name in names.items()
    }


def _configure(folder: Path, archive: ReceivingArchive) -> Settings:
    config = folder / "segnode.toml"
    config.write_text(
        f"""
[node]
data = "node"
[listener]
port = 0
min_free_gb = 0.5
[completion]
quiet_s = 10
[[destinations]]
name = "archive"
kind = "c-store"
host = "127.0.0.1"
port = {archive.port}
ae_title = "{archive.ae_title}"
""",
        "utf-8",
    )
    return load_settings(config)


@contextmanager
def _node(
    folder: Path, settings: Settings, result: Demonstration, tell: Callable[[str], None]
) -> Iterator[int]:
    """A node as an administrator runs it; gives the port of its listener."""
    ports = settings.node.data / "listener.json"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SEGNODE_")}
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker.cli", "--config", str(folder / "segnode.toml"), "run"],
            stdout=log, stderr=log, env=environment,
        )  # fmt: skip
        try:
            with _stage(result, "start the node", tell):
                _wait(lambda: ports.is_file() or None, process, "start", _START_S)
            yield int(json.loads(ports.read_text("utf-8"))["port"])
        except StageFailed:
            shutil.copy(folder / "node.log", result.output / "node.log")
            raise
        finally:
            process.terminate()
            process.wait()


def _wait(found: Callable[[], Any], process: subprocess.Popen[bytes], stage: str, limit_s: float) -> Any:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if (answer := found()) is not None:
            return answer
        if process.poll() is not None:
            raise StageFailed(f"The node ended with status {process.returncode} (stage: {stage}).")
        time.sleep(0.05)
    raise StageFailed(f"The stage '{stage}' did not finish within {limit_s:.0f} s.")


def _follow(settings: Settings, result: Demonstration, tell: Callable[[str], None]) -> None:
    """Tells of every transition until all jobs are final."""
    catalogue = Catalogue(settings.catalogue_url)
    told: dict[int, int] = {}
    start, deadline = time.perf_counter(), time.monotonic() + _FINISH_S
    try:
        while time.monotonic() < deadline:
            jobs = catalogue.jobs.listed()
            for job in reversed(jobs):
                for line in catalogue.jobs.history(job.id)[told.get(job.id, 0) :]:
                    told[job.id] = told.get(job.id, 0) + 1
                    tell(f"  job {job.id} {line.state.lower()} {line.reason}".rstrip())
            if jobs and all(job.state.final for job in jobs):
                result.stages["from the last slice to the last object"] = round(
                    time.perf_counter() - start, 3
                )
                result.jobs = [_described(catalogue, job) for job in reversed(jobs)]
                return
            time.sleep(0.1)
    finally:
        catalogue.close()
    raise StageFailed(f"The jobs did not finish within {_FINISH_S:.0f} s.")


def _described(catalogue: Catalogue, job: Job) -> dict[str, Any]:
    results = catalogue.jobs.results(job.id)
    return {
        "job": job.id, "state": job.state, "reason": job.reason, "evidence": job.evidence,
        "series_instance_uid": job.series_instance_uid, "instances": job.instances,
        "steps": {row.name: round(row.seconds, 3) for row in catalogue.jobs.steps(job.id)},
        "objects": [
            {"kind": item.kind, "sop_instance_uid": item.sop_instance_uid, "size": item.size}
            for item in results
        ],
        "receipts": [
            {"destination": answer.destination,
             "sop_instance_uid": answer.sop_instance_uid, "status": answer.status}
            for answer in catalogue.deliveries.receipts(job.id)
        ],
    }  # fmt: skip


def _examine(settings: Settings, archive: ReceivingArchive, result: Demonstration) -> None:
    """Holds what the archive received against what was recorded, and draws it over the source series."""
    catalogue = Catalogue(settings.catalogue_url)
    received = {instance.sop_instance_uid: instance for instance in archive.instances()}
    try:
        for described in result.jobs:
            wanted = {item["sop_instance_uid"] for item in described["objects"]}
            if missing := wanted - received.keys():
                raise StageFailed(f"{len(missing)} of {len(wanted)} objects did not arrive in the archive.")
            if wanted:
                place = result.output if len(result.jobs) == 1 else result.output / f"job-{described['job']}"
                objects = [received[item["sop_instance_uid"]] for item in described["objects"]]
                described["segments"] = _draw(
                    settings, catalogue, described["job"], (archive, objects), place
                )
    finally:
        catalogue.close()


def _draw(
    settings: Settings,
    catalogue: Catalogue,
    job_id: int,
    arrived: tuple[ReceivingArchive, list[StoredInstance]],
    place: Path,
) -> list[dict[str, Any]]:
    """Copies the received objects to `place`, reads the SEG as received, and draws it over its source."""
    place.mkdir(parents=True, exist_ok=True)
    archive, objects = arrived
    source = read_series([settings.spool / item.path for item in catalogue.arrivals.of_job(job_id)])
    label_map = LabelMap(source.volume.array * 0, source.volume.geometry, ())
    for item in objects:
        name = "seg.dcm" if item.header.modality == "SEG" else "sr.dcm"
        shutil.copy(archive.file(item), place / name)
        if name == "seg.dcm":
            label_map = read_segmentation(place / name, source.volume.geometry)
    measured = measure(label_map, source.volume)
    found = [item for item in measured if item.voxels]
    title = [f"{item.label.name}: {item.volume_ml:.0f} mL" for item in found] or ["nothing found"]
    overlay_picture(source.volume, label_map, title, measured).save(place / "overlay.png")
    return [
        {
            "name": item.label.name, "volume_ml": round(item.volume_ml, 2), "mean": round(item.mean, 1),
            "centroid_lps_mm": [round(value, 2) for value in item.centroid_lps], "unit": item.unit,
        }
        for item in found
    ]  # fmt: skip
