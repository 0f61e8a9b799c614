"""The catalogue: arrivals, jobs, deliveries."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from dicom_node.catalogue.database import Database, schema_version
from dicom_node.catalogue.schema import metadata
from dicom_node.catalogue.store import Catalogue
from dicom_node.errors import CatalogueUnavailable, JobUnknown, LeaseLost, TransitionRefused
from dicom_node.records import (
    AssociationEnding,
    DeliveryReceipt,
    Job,
    JobEvent,
    JobState,
    ResultObject,
    StoredInstance,
)

MakeJob = Callable[..., Job]
Send = Callable[..., None]


def result(kind: str = "SEG", uid: str = "2.25.1") -> ResultObject:
    """A result as the writer returns it."""
    facts = {"summary": "ct-lungs: Left lung 2000 mL"}
    return ResultObject(
        kind, "1.2.840", uid, "2.25.2", "1.2", "1.2.1", Path("1/seg.dcm"), 10, "d" * 64, facts
    )


def test_migration_gives_exactly_the_schema_of_the_code(tmp_path: Path) -> None:
    """SCOPE I6: upgrade; the migrations and the tables of the code are the same schema."""
    url = f"sqlite:///{tmp_path / 'c.db'}"
    Database(url).migrate()
    found = inspect(create_engine(url))
    for table in metadata.sorted_tables:
        assert {column["name"] for column in found.get_columns(table.name)} == set(table.columns.keys())
        wanted = {index.name for index in table.indexes}
        assert wanted <= {index["name"] for index in found.get_indexes(table.name)}


def test_a_catalogue_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    """SCOPE I6: a program never works on a schema that it does not know."""
    url = f"sqlite:///{tmp_path / 'c.db'}"
    with pytest.raises(CatalogueUnavailable, match="empty"):
        Catalogue(url, migrate=False)
    Catalogue(url).close()
    Catalogue(url, migrate=False).close()
    with create_engine(url).begin() as connection:
        assert schema_version(connection) == "0001"
        connection.exec_driver_sql("update alembic_version set version_num = 'future'")
    with pytest.raises(CatalogueUnavailable, match="future"):
        Catalogue(url, migrate=False)


def test_commits_are_synced_to_disk(tmp_path: Path) -> None:
    """SCOPE A1: Success is answered only for what survives a power cut."""
    database = Database(f"sqlite:///{tmp_path / 'c.db'}")
    with database.write() as connection:
        assert connection.exec_driver_sql("pragma synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"


def test_the_same_content_again_changes_nothing(catalogue: Catalogue, ready_job: MakeJob, send: Send) -> None:
    """SCOPE A3: a study sent twice is one job."""
    ready_job()
    send([0, 1, 2, 3])
    assert len(catalogue.jobs.listed()) == 1


def test_a_late_slice_makes_a_new_revision_that_supersedes(
    catalogue: Catalogue, ready_job: MakeJob, send: Send
) -> None:
    """SCOPE A3: late slices."""
    first = ready_job()
    send([4])
    receiving, last = catalogue.jobs.receiving()[0]
    second = catalogue.jobs.complete(receiving, last, "test")
    assert second is not None
    assert (second.revision, second.instances) == (2, 5)
    assert catalogue.jobs.get(first.id).state == JobState.SKIPPED
    assert "revision 2" in catalogue.jobs.get(first.id).reason
    assert len(catalogue.arrivals.of_job(first.id)) == 4
    assert len(catalogue.arrivals.of_job(second.id)) == 5


def test_other_content_under_a_known_uid_is_kept_and_counts(
    catalogue: Catalogue, ready_job: MakeJob, send: Send, instance: Callable[..., StoredInstance]
) -> None:
    """SCOPE A3: the same UID with other content; nothing is lost, the newer counts, and it is said."""
    first = ready_job()
    send([2], content="b")
    receiving, last = catalogue.jobs.receiving()[0]
    assert any("other content" in row.reason for row in catalogue.jobs.history(receiving.id))
    second = catalogue.jobs.complete(receiving, last, "test")
    assert second is not None
    assert second.content_digest != first.content_digest
    digests = {item.digest[0] for item in catalogue.arrivals.of_job(second.id)}
    assert digests == {"a", "b"}
    assert len(catalogue.arrivals.of_job(second.id)) == 4
    assert not catalogue.arrivals.known("1.2.3.2", instance(2).digest)
    assert catalogue.arrivals.known("1.2.3.2", instance(2, content="b").digest)


def test_content_that_came_back_is_skipped_with_the_reason(
    catalogue: Catalogue, ready_job: MakeJob, send: Send
) -> None:
    """SCOPE G7: the same content gives the same objects, so it is not done again."""
    ready_job()
    send([2], content="b")
    send([2], content="a")
    receiving, last = catalogue.jobs.receiving()[0]
    again = catalogue.jobs.complete(receiving, last, "test")
    assert again is not None
    assert again.state == JobState.SKIPPED
    assert "revision 1" in again.reason


def test_the_same_sop_instance_uid_in_two_series_stays_two(
    catalogue: Catalogue, instance: Callable[..., StoredInstance]
) -> None:
    """SCOPE A3: a scanner that reuses UIDs does not take slices from another patient's series."""
    one = instance(1)
    other = replace(
        instance(1, content="b"), series_instance_uid="9.9", study_instance_uid="9", patient_id="P2"
    )
    catalogue.arrivals.record(one)
    catalogue.arrivals.record(other)
    assert catalogue.arrivals.known(one.sop_instance_uid, one.digest)
    assert catalogue.arrivals.known(other.sop_instance_uid, other.digest)
    assert len(catalogue.jobs.receiving()) == 2


def test_completion_refuses_when_another_slice_came_meanwhile(catalogue: Catalogue, send: Send) -> None:
    """SCOPE A3: no slice falls between the look and the decision."""
    send([0, 1, 2])
    job, last = catalogue.jobs.receiving()[0]
    send([3])
    assert catalogue.jobs.complete(job, last, "test") is None


def test_only_one_worker_claims(catalogue: Catalogue, ready_job: MakeJob) -> None:
    """DESIGN step 4: a second delivery of a message finds the job claimed and stops."""
    job = ready_job()
    assert catalogue.jobs.claim(job.id, "w1", 10) is not None
    assert catalogue.jobs.claim(job.id, "w2", 10) is None
    assert catalogue.jobs.to_submit() == []


def test_a_lost_lease_fences_the_old_worker_off(catalogue: Catalogue, ready_job: MakeJob) -> None:
    """SCOPE I1: two workers with the same job; only the holder of the lease writes."""
    job = ready_job()
    old = catalogue.jobs.claim(job.id, "w1", -1)
    assert old is not None
    assert catalogue.jobs.release(owner=None, max_attempts=3) == [job.id]
    new = catalogue.jobs.claim(job.id, "w2", 10)
    assert new is not None
    with pytest.raises(LeaseLost):
        catalogue.jobs.renew(old, 10)
    with pytest.raises(LeaseLost):
        catalogue.deliveries.written(old, [("m", result())], ["pacs"])
    catalogue.deliveries.written(new, [("m", result())], ["pacs"])
    assert catalogue.jobs.get(job.id).state == JobState.DELIVERING


def test_a_job_that_kills_its_workers_is_set_aside(catalogue: Catalogue, ready_job: MakeJob) -> None:
    """SCOPE I1: a poison study does not stop the node."""
    job = ready_job()
    for _ in range(3):
        assert catalogue.jobs.claim(job.id, "w1", 10) is not None
        catalogue.jobs.release(owner="w1", max_attempts=3)
    failed = catalogue.jobs.get(job.id)
    assert failed.state == JobState.FAILED
    assert "WorkerLost" in failed.reason
    assert catalogue.jobs.to_submit() == []
    assert catalogue.jobs.retry(job.id).state == JobState.READY


def test_a_postponed_job_waits_and_does_not_count_as_a_crash(
    catalogue: Catalogue, ready_job: MakeJob
) -> None:
    """SCOPE I6: a full disk for days does not set a job aside."""
    job = ready_job()
    for wait in (-1, 3600):
        claimed = catalogue.jobs.claim(job.id, "w1", 10)
        assert claimed is not None
        catalogue.jobs.postpone(claimed, "DiskFull", datetime.now(UTC) + timedelta(seconds=wait))
        assert len(catalogue.jobs.to_submit()) == (wait < 0)
    assert catalogue.jobs.claim(job.id, "w1", 10) is None  # a second message does not shorten the wait
    assert catalogue.jobs.get(job.id).attempts == 0
    assert catalogue.jobs.get(job.id).postponements == 2


def test_a_job_is_done_when_every_destination_has_it(catalogue: Catalogue, ready_job: MakeJob) -> None:
    """SCOPE G5: several destinations; each has its own retries."""
    job = catalogue.jobs.claim(ready_job().id, "w", 10)
    assert job is not None
    catalogue.deliveries.written(job, [("m", result())], ["pacs", "vna"])
    first, second = catalogue.deliveries.claim_due(job.id, "d", 10)
    assert catalogue.deliveries.claim_due(job.id, "d2", 10) == []
    receipt = DeliveryReceipt("pacs", "2.25.1", "0x0000", datetime.now(UTC))
    catalogue.deliveries.delivered(first, [receipt])
    catalogue.deliveries.failed(second, "PACS away", datetime.now(UTC) - timedelta(seconds=1))
    assert catalogue.jobs.get(job.id).state == JobState.DELIVERING
    assert "PACS away" in catalogue.jobs.get(job.id).reason
    (again,) = catalogue.deliveries.claim_due(job.id, "d", 10)
    assert again.attempts == 2
    catalogue.deliveries.delivered(again, [])
    assert catalogue.jobs.get(job.id).state == JobState.DONE
    assert "Left lung" in catalogue.jobs.get(job.id).reason
    assert catalogue.deliveries.receipts(job.id) == [receipt]


def test_a_delivery_given_up_fails_the_job_and_can_be_sent_again(
    catalogue: Catalogue, ready_job: MakeJob
) -> None:
    """SCOPE G6: after the last day the job fails by name, and a person may send it again."""
    job = catalogue.jobs.claim(ready_job().id, "w", 10)
    assert job is not None
    catalogue.deliveries.written(job, [("m", result())], ["pacs"])
    (delivery,) = catalogue.deliveries.claim_due(job.id, "d", 10)
    catalogue.deliveries.failed(delivery, "refused", None)
    assert catalogue.jobs.get(job.id).state == JobState.FAILED
    catalogue.deliveries.redeliver(job.id, ["pacs"])
    assert catalogue.jobs.get(job.id).state == JobState.DELIVERING
    assert catalogue.jobs.results(job.id) == (result(),)


def test_deliveries_of_a_dead_worker_are_due_at_once(catalogue: Catalogue, ready_job: MakeJob) -> None:
    """SCOPE I1: a worker killed in the middle of a delivery."""
    job = catalogue.jobs.claim(ready_job().id, "w", 10)
    assert job is not None
    catalogue.deliveries.written(job, [("m", result())], ["pacs"])
    catalogue.deliveries.claim_due(job.id, "d", 1000)
    assert catalogue.deliveries.release("d") == [job.id]
    assert len(catalogue.deliveries.claim_due(job.id, "d", 10)) == 1


def test_without_a_destination_the_job_is_done(catalogue: Catalogue, ready_job: MakeJob) -> None:
    """SCOPE G5: results stay on the node, and the history says why."""
    job = catalogue.jobs.claim(ready_job().id, "w", 10)
    assert job is not None
    catalogue.deliveries.written(job, [("m", result())], [])
    done = catalogue.jobs.get(job.id)
    assert (done.state, done.reason) == (JobState.DONE, "no destination is configured")


def test_associations_of_a_dead_listener_count_as_lost(catalogue: Catalogue, send: Send) -> None:
    """SCOPE A3: what a killed listener left open is no clean release."""
    send([0, 1, 2], ending=None)
    assert catalogue.arrivals.endings("1.2", "1.2.3") == [None]
    assert catalogue.arrivals.close_lost() == 1
    assert catalogue.arrivals.endings("1.2", "1.2.3") == [AssociationEnding.LOST]


def test_unknown_jobs_and_impossible_transitions_are_refused(
    catalogue: Catalogue, ready_job: MakeJob
) -> None:
    """Bad input gets a named error."""
    with pytest.raises(JobUnknown, match="99"):
        catalogue.jobs.get(99)
    job = ready_job()
    with pytest.raises(TransitionRefused):
        catalogue.jobs.retry(job.id)
    claimed = catalogue.jobs.claim(job.id, "w", 10)
    assert claimed is not None
    catalogue.jobs.end(claimed, JobEvent.SKIPPED, "because")
    assert [row.state for row in catalogue.jobs.history(job.id)] == [
        "RECEIVING",
        "READY",
        "RUNNING",
        "SKIPPED",
    ]
