"""One segmentation task: from the claim of a job to its verified, recorded results."""

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicom_node.errors import LeaseLost
from dicom_node.reading import SourceSeries, read_series, summarise
from dicom_node.records import Job, JobEvent, ResultObject
from models.registry import ModelPackage
from worker.leases import kept
from worker.pipeline import Order, Stopwatch, segment, summary_of
from worker.retries import after_failure
from worker.routing import route
from worker.wiring import Parts

log = logging.getLogger(__name__)


def segment_job(parts: Parts, job_id: int) -> None:
    """Does the job, if it is still to be done and nobody else does it.

    This is one of the two outermost loops: whatever goes wrong ends in a named state with its reason. Only
    a lost lease and a catalogue that is away leave the job as it is, for the reconciler.
    """
    lease_s = parts.settings.worker.lease_s
    job = parts.catalogue.jobs.claim(job_id, parts.owner, lease_s)
    if job is None:
        return
    with kept(lambda: parts.catalogue.jobs.renew(job, lease_s), lease_s):
        try:
            _segment(parts, job)
        except LeaseLost as error:
            log.warning("job given up", extra={"error": error.name})
        except Exception as error:  # noqa: BLE001  (the outermost loop; the verdict names it)
            _conclude(parts, job, error)


def _conclude(parts: Parts, job: Job, error: Exception) -> None:
    verdict = after_failure(error, job.postponements)
    log.log(
        logging.INFO if verdict.event is JobEvent.SKIPPED else logging.ERROR,
        "job %s", verdict.event, extra={"reason": verdict.reason}, exc_info=error,
    )  # fmt: skip
    if verdict.event is JobEvent.POSTPONED:
        parts.catalogue.jobs.postpone(job, verdict.reason, datetime.now(UTC) + verdict.wait)
    else:
        parts.catalogue.jobs.end(job, verdict.event, verdict.reason)


def _segment(parts: Parts, job: Job) -> None:
    def record(name: str, seconds: float) -> None:
        started = datetime.now(UTC) - timedelta(seconds=seconds)
        parts.catalogue.jobs.record_step(job, name, started, seconds)

    step = Stopwatch(record)
    stored = parts.catalogue.arrivals.of_job(job.id)
    headers = [instance.header for instance in stored]
    summary = summarise(headers, job.study_instance_uid, job.series_instance_uid)
    routing = route(summary, parts.packages())
    if not routing.accepted:
        parts.catalogue.jobs.end(job, JobEvent.SKIPPED, f"no model accepts the series: {routing.reason}")
        return
    with step("read"):
        for instance in stored:
            parts.spool.verify(instance)
        source = read_series([parts.spool.path(instance.path) for instance in stored])
    objects: list[tuple[str, ResultObject]] = []
    for package in routing.accepted:
        objects += _with_model(parts, job, package, source, step)
    later = parts.catalogue.jobs.superseded(job)
    if later is not None:
        parts.catalogue.jobs.end(job, JobEvent.SUPERSEDED, f"superseded by revision {later}")
        return
    names = [destination.name for destination in parts.settings.destinations]
    parts.catalogue.deliveries.written(job, objects, names)
    log.info("segmented", extra={"seconds": {name: round(value, 3) for name, value in step.seconds.items()}})


def _with_model(
    parts: Parts, job: Job, package: ModelPackage, source: SourceSeries, step: Stopwatch
) -> list[tuple[str, ResultObject]]:
    """The objects of one model, with paths relative to the results folder."""
    name = package.manifest.model.name
    folder = Path(str(job.id)) / name
    order = Order(
        package=package,
        engine=parts.engine(package),
        content_digest=job.content_digest,
        content_time=job.completed_at or job.created_at,
        folder=parts.settings.results / folder,
        node=parts.settings.node.name,
    )
    result = segment(source, order, step)
    summary = f"{name}: {summary_of(result.measurements)}"
    return [
        (name, replace(item, path=folder / item.path.name, facts=item.facts | {"summary": summary}))
        for item in result.objects
    ]
