"""What must hold after every fault."""

import time
from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from sqlalchemy import func, select

from dicom_node.archive import ReceivingArchive
from dicom_node.catalogue.database import Database
from dicom_node.catalogue.schema import deliveries, instances, outbox, results
from dicom_node.content import data_set_digest
from dicom_node.records import Job, JobState, ResultObject
from tests.faults.node import RoleNode
from tests.faults.patients import Patient


def check(node: RoleNode, archive: ReceivingArchive, patients: Sequence[Patient]) -> None:
    """Everything, for these patients and for the node as a whole."""
    for patient in patients:
        check_received(node, patient)
        check_results(node, archive, patient)
    deadline = time.monotonic() + 10  # the last broom may sweep a moment after the job's end
    while True:
        try:
            return check_orphans(node, archive)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def check_received(node: RoleNode, patient: Patient) -> None:
    """Acknowledged means present and byte-equal, and recorded once."""
    job = only_job(node, patient)
    stored = {item.sop_instance_uid: item for item in node.catalogue().arrivals.of_job(job.id)}
    assert stored.keys() == patient.acknowledged.keys(), "the job has other slices than were acknowledged"
    for uid, digest in patient.acknowledged.items():
        assert stored[uid].digest == digest
        assert data_set_digest(node.settings.spool / stored[uid].path) == digest
        assert stored[uid].patient_id == patient.patient_id


def only_job(node: RoleNode, patient: Patient) -> Job:
    """Every series ends once: one job, DONE."""
    jobs = node.jobs(patient.series)
    assert [job.state for job in jobs] == [JobState.DONE], [(job.state, job.reason) for job in jobs]
    return jobs[0]


def check_results(node: RoleNode, archive: ReceivingArchive, patient: Patient) -> None:
    """One SEG and one SR, of this patient and this study, delivered once, with bytes as recorded."""
    job = only_job(node, patient)
    assert job.content_digest == patient.content
    recorded = node.catalogue().jobs.results(job.id)
    assert [item.kind for item in recorded] == ["SEG", "SR"]
    receipts = [
        (receipt.destination, receipt.sop_instance_uid)
        for receipt in node.catalogue().deliveries.receipts(job.id)
    ]
    assert sorted(receipts) == sorted(
        (destination.name, item.sop_instance_uid)
        for destination in node.settings.destinations
        for item in recorded
    )
    received = [item for item in archive.instances() if item.study_instance_uid == patient.study]
    assert {item.sop_instance_uid for item in received} == {item.sop_instance_uid for item in recorded}
    for item in recorded:
        _check_object(node, archive, patient, item)


def _check_object(node: RoleNode, archive: ReceivingArchive, patient: Patient, item: ResultObject) -> None:
    path = node.settings.results / item.path
    assert path.stat().st_size == item.size
    (arrived,) = [i for i in archive.instances() if i.sop_instance_uid == item.sop_instance_uid]
    assert arrived.digest == data_set_digest(path), "the PACS has other bytes than the record"
    dataset = dcmread(archive.file(arrived), stop_before_pixels=True)
    assert dataset.PatientID == patient.patient_id
    assert dataset.StudyInstanceUID == patient.study
    assert referenced(dataset) <= patient.digests.keys()
    if item.kind == "SEG":
        assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == patient.series


def referenced(dataset: object) -> set[str]:
    """CT instances that a SEG says it was made from."""
    sequence = getattr(dataset, "ReferencedSeriesSequence", [])
    return {
        instance.ReferencedSOPInstanceUID
        for series in sequence
        for instance in series.ReferencedInstanceSequence
    }


def check_orphans(node: RoleNode, archive: ReceivingArchive) -> None:
    """Nothing lies about that no record names, and no record names what is not there."""
    spool, output = node.settings.spool, node.settings.results
    database = Database(node.settings.catalogue_url)
    try:
        with database.read() as connection:
            rows = set(connection.scalars(select(instances.c.path)))
            objects = set(connection.scalars(select(results.c.path)))
            waiting = connection.scalar(select(func.count()).select_from(outbox))
            leased = select(func.count()).where(deliveries.c.lease_until.is_not(None))
            held = connection.scalar(leased)
    finally:
        database.close()
    assert files_below(spool) ^ rows == set(), "spool and rows differ"
    assert files_below(output) ^ objects == set(), "result files and rows differ"
    assert waiting == 0, "outbox rows are left"
    assert held == 0, "deliveries are still leased"
    assert files_below(node.settings.quarantine) == set()
    assert files_below(node.folder / "tmp") == set(), "temporary files are left"
    arrived = archive.instances()
    kept = files_below(Path(archive.file(arrived[0])).parents[1]) if arrived else set()
    assert len(kept) == len(arrived), "the PACS was sent one UID with two contents"


def files_below(folder: Path) -> set[str]:
    """Every file, relative to the folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
