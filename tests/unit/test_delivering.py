"""A delivery task with destinations that answer, fail and surprise."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_node.errors import DestinationUnreachable, NodeError
from dicom_node.queue import MemoryQueue
from dicom_node.records import DeliveryReceipt, JobState, ResultObject, SliceHeader, StoredInstance
from dicom_node.settings import DestinationSettings, Settings
from worker.delivering import deliver_job
from worker.wiring import Parts, build_parts

RESULT = ResultObject("SR", "1.2", "2.25.1", "2.25.2", "1.2", "1.2.1", Path("1/sr.dcm"), 10, "d" * 64, {})


class Surprise:
    """A destination that raises `error`, or takes everything where that is None."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def deliver(self, objects: tuple[ResultObject, ...], folder: Path) -> tuple[DeliveryReceipt, ...]:
        """See Deliverer."""
        if self.error:
            raise self.error
        return tuple(
            DeliveryReceipt("pacs", o.sop_instance_uid, "0x0000", datetime.now(UTC)) for o in objects
        )

    def probe(self) -> str:
        """See Deliverer."""
        return "here"


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """A deliver worker's parts with one destination."""
    destination = DestinationSettings(name="pacs", kind="folder", path=tmp_path / "out")
    settings = Settings.model_validate({"node": {"data": tmp_path}, "destinations": (destination,)})
    made, _ = build_parts(settings, "work-deliver", MemoryQueue())
    yield made
    made.close()


def delivering_job(parts: Parts) -> int:
    """A job whose results are written."""
    for number in range(3):
        parts.catalogue.arrivals.record(
            StoredInstance(f"1.2.3.{number}", "1.2", "1.2.3", "1.2", "1.2.1", f"{number:064d}", 1, "p",
                           datetime.now(UTC), None, "P", "A", SliceHeader("CT"))
        )  # fmt: skip
    job, last = parts.catalogue.jobs.receiving()[0]
    ready = parts.catalogue.jobs.complete(job, last, "test")
    claimed = ready and parts.catalogue.jobs.claim(ready.id, "w", 10)
    assert claimed
    parts.catalogue.deliveries.written(claimed, [("m", RESULT)], ["pacs"])
    return claimed.id


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DestinationUnreachable("no answer"), "DestinationUnreachable: no answer"),
        (NodeError("the recorded file is gone"), "the recorded file is gone"),
        (KeyError("Doe^John"), "KeyError in"),
    ],
)
def test_every_failure_is_named_and_tried_again(parts: Parts, error: Exception, words: str) -> None:
    """SCOPE G6: a delivery that fails for whatever reason is tried again, and says why; no patient data."""
    job_id = delivering_job(parts)
    deliver_job(replace(parts, make_deliverer=lambda *_: Surprise(error)), job_id)
    (row,) = parts.catalogue.deliveries.of_job(job_id)
    assert (row.state, row.attempts, row.lease_until) == ("PENDING", 1, None)
    assert words in row.last_error
    assert "Doe" not in row.last_error
    assert row.next_attempt_at > datetime.now(UTC)
    assert parts.catalogue.jobs.get(job_id).state == JobState.DELIVERING


def test_a_delivered_job_is_done_with_its_receipts(parts: Parts) -> None:
    """SCOPE G5: a receipt for each object."""
    job_id = delivering_job(parts)
    deliver_job(replace(parts, make_deliverer=lambda *_: Surprise(None)), job_id)
    assert parts.catalogue.jobs.get(job_id).state == JobState.DONE
    assert [item.sop_instance_uid for item in parts.catalogue.deliveries.receipts(job_id)] == ["2.25.1"]


def test_a_destination_taken_out_of_the_configuration_fails_by_name(parts: Parts) -> None:
    """SCOPE G6: nothing waits for ever for a destination that is configured no more."""
    job_id = delivering_job(parts)
    settings = parts.settings.model_copy(update={"destinations": ()})
    deliver_job(replace(parts, settings=settings), job_id)
    job = parts.catalogue.jobs.get(job_id)
    assert job.state == JobState.FAILED
    assert "not configured any more" in job.reason
