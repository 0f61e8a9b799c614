"""Completion, the broker and the reconciler, retries and routing."""

import base64
import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty

import pytest

from dicom_node.catalogue.store import Catalogue
from dicom_node.errors import (
    DestinationRefused,
    DestinationUnreachable,
    NotAVolume,
    QueueUnavailable,
    SliceGap,
)
from dicom_node.intake import Intake
from dicom_node.queue import CeleryQueue, JobQueue, MemoryQueue, make_app
from dicom_node.reconciler import Reconciler
from dicom_node.records import AssociationEnding, Job, JobEvent, JobState, SeriesSummary, SliceHeader
from dicom_node.settings import CompletionSettings, Settings
from worker.errors import EngineFailed
from worker.retries import DELIVER_S, POSTPONE_S, REFUSED_S, after_failure, next_delivery

Send = Callable[..., None]
MakeJob = Callable[..., Job]
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def later(seconds: float) -> datetime:
    """A moment from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.fixture
def intake(catalogue: Catalogue) -> Intake:
    """Two seconds of grace, thirty of quiet."""
    return Intake(CompletionSettings(grace_s=2, quiet_s=30), catalogue)


def test_release_and_contiguous_slices_complete_after_the_grace(intake: Intake, send: Send) -> None:
    """SCOPE A3: completion by evidence, two seconds after the last slice."""
    send([0, 1, 2, 3])
    assert intake.tick(later(1.5)) == []
    (job,) = intake.tick(later(2.1))
    assert job.state == JobState.READY
    assert "contiguous" in job.evidence
    assert intake.tick(later(60)) == []


@pytest.mark.parametrize(
    ("numbers", "ending"),
    [
        ([0, 1, 3, 4], AssociationEnding.RELEASED),  # a gap
        ([0, 1], AssociationEnding.RELEASED),  # too few for a volume
        ([0, 1, 2], AssociationEnding.ABORTED),
        ([0, 1, 2], None),  # the association is still open
    ],
)
def test_without_that_evidence_only_the_quiet_period_completes(
    intake: Intake, send: Send, numbers: list[int], ending: AssociationEnding | None
) -> None:
    """SCOPE A3: a quiet period as the last resort."""
    send(numbers, ending=ending)
    assert intake.tick(later(29)) == []
    (job,) = intake.tick(later(31))
    assert "quiet" in job.evidence


def test_silence_counts_only_while_somebody_listens(send: Send, catalogue: Catalogue) -> None:
    """SCOPE A3, I1: after a restart the sender has the quiet period to go on where it was cut off."""
    send([0, 1], ending=AssociationEnding.LOST)
    sent = datetime.now(UTC)
    time.sleep(0.2)
    restarted = Intake(CompletionSettings(grace_s=1, quiet_s=10), catalogue)
    assert restarted.tick(sent + timedelta(seconds=10.1)) == []
    assert restarted.tick(later(10.1))


def test_a_sender_that_goes_on_after_our_death_and_releases_is_evidence(intake: Intake, send: Send) -> None:
    """SCOPE A3, I1: no quiet period after a restart of the listener, unless the sender stays away."""
    send([0, 1, 2], ending=AssociationEnding.LOST)
    assert intake.tick(later(5)) == []
    send([3, 4])
    (job,) = intake.tick(later(5))
    assert (job.instances, "release" in job.evidence) == (5, True)


def test_a_gap_that_closes_in_a_second_association_completes(intake: Intake, send: Send) -> None:
    """SCOPE A3: slices out of order over two associations."""
    send([0, 1, 3])
    assert intake.tick(later(5)) == []
    send([2])
    (job,) = intake.tick(later(5))
    assert job.instances == 4


def test_interleaved_series_complete_each_on_its_own(
    intake: Intake, send: Send, catalogue: Catalogue
) -> None:
    """SCOPE A3: two series interleaved."""
    send([0, 1, 2], series="1.2.3", ending=None)
    send([0, 1, 2], series="1.2.4")
    (job,) = intake.tick(later(3))
    assert job.series_instance_uid == "1.2.4"
    assert len(catalogue.jobs.receiving()) == 1


@pytest.fixture(params=["memory", "filesystem"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> JobQueue:
    """The fake and the real queue pass the same tests."""
    if request.param == "memory":
        return MemoryQueue()
    return CeleryQueue(make_app(Settings.model_validate({"node": {"data": tmp_path}})))


def test_a_queue_knows_whether_it_is_empty(queue: JobQueue) -> None:
    """Contract of JobQueue."""
    assert queue.empty("segment")
    queue.submit(7, "segment")
    assert not queue.empty("segment")
    assert queue.empty("deliver")


def test_the_folder_broker_survives_what_kills_leave_behind(tmp_path: Path) -> None:
    """SCOPE I1: a half-written message stops nobody, and goes; the folder may vanish at any time."""
    queue = CeleryQueue(make_app(Settings.model_validate({"node": {"data": tmp_path}})))
    assert queue.empty("segment")
    queue.submit(7, "segment")
    shutil.rmtree(tmp_path / "broker")
    assert queue.empty("segment")
    queue.submit(8, "segment")
    abandoned = tmp_path / "broker" / "00000000000000000001-x.segment.msg"
    abandoned.touch()
    with queue._app.connection_for_read() as connection:
        channel = connection.default_channel
        assert b"8" in base64.b64decode(channel._get("segment")["body"])
        assert abandoned.exists()  # its writer may be about to write
        os.utime(abandoned, (0, 0))
        with pytest.raises(Empty):
            channel._get("segment")
    assert not list((tmp_path / "broker").iterdir())


def test_a_broker_that_is_away_is_a_named_error() -> None:
    """SCOPE I1: Redis gone."""
    settings = Settings.model_validate({"queue": {"broker": "redis://127.0.0.1:1/0"}})
    with pytest.raises(QueueUnavailable, match="broker"):
        CeleryQueue(make_app(settings)).submit(1, "segment")
    with pytest.raises(QueueUnavailable, match="broker"):
        CeleryQueue(make_app(settings)).empty("segment")


def test_the_outbox_survives_a_broker_that_is_away(catalogue: Catalogue, ready_job: MakeJob) -> None:
    """DESIGN rule 3: the broker is a hint."""
    queue = MemoryQueue()
    reconciler = Reconciler(Settings(), catalogue, queue)
    job = ready_job()
    queue.broken = True
    assert reconciler.dispatch() == 0
    queue.broken = False
    assert reconciler.dispatch() == 1
    assert list(queue.messages["segment"]) == [job.id]
    assert catalogue.jobs.get(job.id).state == JobState.QUEUED
    assert reconciler.dispatch() == 0


def test_a_wiped_broker_gets_every_job_again(catalogue: Catalogue, ready_job: MakeJob) -> None:
    """DESIGN rule 3: wipe the broker at any moment and every job still ends."""
    queue = MemoryQueue()
    settings = Settings.model_validate({"queue": {"resubmit_s": 0.001}})
    reconciler = Reconciler(settings, catalogue, queue)
    jobs = {ready_job(f"1.2.{n}").id for n in range(3, 8)}
    reconciler.dispatch()
    queue.messages["segment"].clear()
    reconciler.reconcile()
    reconciler.dispatch()
    assert set(queue.messages["segment"]) == jobs


def test_waiting_jobs_are_not_submitted_again_while_the_broker_holds_them(
    catalogue: Catalogue, ready_job: MakeJob
) -> None:
    """SCOPE I1: a long queue does not flood its broker."""
    queue = MemoryQueue()
    reconciler = Reconciler(Settings(), catalogue, queue)
    for n in range(3, 8):
        ready_job(f"1.2.{n}")
    reconciler.dispatch()
    reconciler.reconcile()
    reconciler.dispatch()
    assert len(queue.messages["segment"]) == 5


def test_what_lies_in_the_data_fails_and_what_lies_in_the_machine_waits() -> None:
    """The retry table."""
    assert after_failure(SliceGap("3 mm"), 0).event is JobEvent.FAILED
    assert after_failure(NotAVolume("a report"), 0).event is JobEvent.SKIPPED
    assert after_failure(EngineFailed("no memory"), 0).wait == timedelta(seconds=POSTPONE_S[0])
    assert after_failure(MemoryError(), len(POSTPONE_S)).event is JobEvent.FAILED
    unexpected = after_failure(KeyError("Doe^John"), 0)
    assert unexpected.event is JobEvent.FAILED
    assert "Doe" not in unexpected.reason


def test_deliveries_are_tried_for_days() -> None:
    """SCOPE G6: an outage of days; peers give up after seconds to an hour."""
    give_up = NOW + timedelta(days=14)
    away = DestinationUnreachable("connection refused")
    assert next_delivery(away, 1, NOW, give_up) == NOW + timedelta(seconds=DELIVER_S[0])
    assert next_delivery(away, 500, NOW, give_up) == NOW + timedelta(seconds=DELIVER_S[-1])
    assert next_delivery(away, 500, give_up, give_up) is None
    refused = DestinationRefused("SOP Class not supported")
    refused.permanent = True
    assert next_delivery(refused, 1, NOW, give_up) == NOW + timedelta(seconds=REFUSED_S)


def test_routing_says_why_a_model_does_not_take_a_series() -> None:
    """SCOPE A8: match on model criteria, each refusal with its reason."""
    from models.registry import Registry
    from worker.routing import route

    package = Registry().get("ct-lungs")
    header = SliceHeader("CT", 512, 512, image_type=("ORIGINAL", "PRIMARY", "AXIAL"))
    good = SeriesSummary("1.2", "1.2.3", "CT", 120, header, 300.0, 2.5)
    assert route(good, [package]).accepted == (package,)
    cases = {
        "modality MR": SeriesSummary("1.2", "1.2.3", "MR", 120, header, 300.0, 2.5),
        "slices are fewer": SeriesSummary("1.2", "1.2.3", "CT", 2, header, 5.0, 2.5),
        "mm apart": SeriesSummary("1.2", "1.2.3", "CT", 30, header, 3000.0, 100.0),
        "LOCALIZER": SeriesSummary(
            "1.2", "1.2.3", "CT", 120, SliceHeader("CT", image_type=("ORIGINAL", "LOCALIZER")), 300.0, 2.5
        ),
    }
    for words, summary in cases.items():
        refused = route(summary, [package])
        assert not refused.accepted
        assert words in refused.reason
