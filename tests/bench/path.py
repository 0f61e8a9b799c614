"""From the last slice to the last object in the PACS, stage by stage, for a 300-slice CT."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dicom_node.archive import ReceivingArchive
from dicom_node.catalogue.store import Catalogue
from dicom_node.delivery.push import push_folder
from dicom_node.records import Job, JobState
from dicom_node.settings import Settings, load_settings
from tests.bench.series import ct_series

BUDGET_S = 5.0
"""Everything but inference and the completion grace, for 300 slices."""


def rows() -> list[dict[str, Any]]:
    """Three studies through one node; the median run's stages, then what is not explained by any stage."""
    source = ct_series()
    with tempfile.TemporaryDirectory(prefix="segnode-bench-") as scratch:
        folder = Path(scratch)
        with ReceivingArchive(folder / "archive") as archive:
            settings = _configure(folder, archive)
            node = subprocess.Popen(
                [sys.executable, "-m", "worker.cli", "--config", str(folder / "segnode.toml"), "run"],
                stderr=(folder / "node.log").open("wb"),
            )
            try:
                return _measure(settings, source, folder)
            finally:
                node.terminate()
                node.wait()


def _configure(folder: Path, archive: ReceivingArchive) -> Settings:
    config = folder / "segnode.toml"
    config.write_text(
        f'[node]\ndata = "node"\n[listener]\nport = 0\nmin_free_gb = 0.1\n'
        f'[[destinations]]\nname = "archive"\nkind = "c-store"\nhost = "127.0.0.1"\n'
        f'port = {archive.port}\nae_title = "{archive.ae_title}"\n',
        "utf-8",
    )
    return load_settings(config)


def _measure(settings: Settings, source: Path, folder: Path) -> list[dict[str, Any]]:
    announcement = settings.node.data / "listener.json"
    while not announcement.is_file():
        time.sleep(0.1)
    time.sleep(8)  # the workers open their engines meanwhile, as in a node that has been up for a while
    port = int(announcement.read_text("utf-8").split('"port": ')[1].split(",")[0])
    runs = []
    for number in range(3):
        copies = _renamed(source, folder / f"study-{number}", number)
        push_folder(copies, f"SEGNODE@127.0.0.1:{port}")
        runs.append(_stages(settings, number + 1))
    runs.sort(key=lambda run: run["all but inference and grace"])
    median = runs[len(runs) // 2]
    return [
        {"stage": name, "seconds": seconds, "of the budget": _share(name, seconds)}
        for name, seconds in median.items()
    ]


def _share(name: str, seconds: float) -> str:
    return f"{seconds / BUDGET_S:.0%}" if name == "all but inference and grace" else ""


def _renamed(source: Path, target: Path, number: int) -> Path:
    """The same pixels as another study: only UIDs change."""
    import pydicom

    target.mkdir()
    for path in source.iterdir():
        dataset = pydicom.dcmread(path)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            dataset[keyword].value = f"{dataset[keyword].value[:60]}.{number}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(target / path.name)
    return target


def _stages(settings: Settings, job_id: int) -> dict[str, float]:
    catalogue = Catalogue(settings.catalogue_url)
    try:
        job = _finished(catalogue, job_id)
        if job.state is not JobState.DONE:
            raise RuntimeError(f"job {job_id} is {job.state}: {job.reason}")
        times = {row.event: row.at for row in catalogue.jobs.history(job_id)}
        last = max(item.received_at for item in catalogue.arrivals.of_job(job_id))
        steps = {row.name: row.seconds for row in catalogue.jobs.steps(job_id)}
        whole = (times["delivered"] - last).total_seconds()
        grace = settings.completion.grace_s
        named = {
            "completion grace": grace,
            "seeing that it is whole": (times["completed"] - last).total_seconds() - grace,
            "to the worker": (times["claimed"] - times["completed"]).total_seconds(),
            **steps,
        }
        segmenting = (times["written"] - times["claimed"]).total_seconds()
        unnamed = whole - sum(named.values())
        return {
            **named,
            "between the stages": unnamed,
            "claim to results": segmenting,
            "last slice to last object": whole,
            "all but inference and grace": whole - grace - steps["infer"],
        }
    finally:
        catalogue.close()


def _finished(catalogue: Catalogue, job_id: int) -> Job:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        jobs = [job for job in catalogue.jobs.listed() if job.id == job_id]
        if jobs and jobs[0].state.final:
            return jobs[0]
        time.sleep(0.05)
    raise RuntimeError(f"job {job_id} did not end")
