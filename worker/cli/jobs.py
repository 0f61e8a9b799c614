"""`segnode jobs`: what became of every series, and once more where a person wants it so. No patient data."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dicom_node.catalogue.store import Catalogue
from dicom_node.errors import CatalogueUnavailable, JobUnknown, SettingsInvalid, TransitionRefused
from dicom_node.records import Job, JobState
from dicom_node.settings import Settings
from worker.cli.output import (
    Exit,
    Global,
    error_document,
    json_option,
    print_fields,
    print_heading,
    print_json,
    print_table,
    size,
)

_REASON_WIDTH = 70


def missing_catalogue(settings: Settings) -> bool:
    """Whether there is no catalogue yet; looking at it must not make one."""
    url = settings.catalogue_url
    return url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file()


@contextmanager
def opened(settings: Settings) -> Iterator[Catalogue]:
    """The catalogue as it is; raises CatalogueUnavailable, also where there is none yet."""
    if missing_catalogue(settings):
        raise CatalogueUnavailable(
            f"There is no catalogue in {settings.node.data} yet.", remedy="`segnode run` makes it."
        )
    catalogue = Catalogue(settings.catalogue_url, name="command line", migrate=False)
    try:
        yield catalogue
    finally:
        catalogue.close()


@click.group()
def jobs() -> None:
    """Look at jobs and start them again.

    A job is one revision of one series. States: RECEIVING, READY, QUEUED, RUNNING, DELIVERING; final: DONE,
    SKIPPED (nothing to do), FAILED. The reason says why.
    """


@jobs.command("list")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(list(JobState), case_sensitive=False),
    help="Only jobs in this state; may be given several times.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The newest so many.")
@json_option
@click.pass_obj
def list_jobs(options: Global, states: Sequence[str], limit: int, as_json: bool) -> None:
    """List the newest jobs, newest first."""
    with opened(options.settings()) as catalogue:
        found = catalogue.jobs.listed([JobState(state) for state in states], limit)
    if as_json:
        print_json([asdict(job) for job in found])
        return
    print_table(
        ("id", "state", "revision", "instances", "updated", "series", "reason"),
        [
            (job.id, job.state, job.revision, job.instances, job.updated_at, job.series_instance_uid,
             _short(job.reason))
            for job in found
        ],
    )  # fmt: skip


def _short(sentence: str) -> str:
    return sentence if len(sentence) <= _REASON_WIDTH else f"{sentence[: _REASON_WIDTH - 3]}..."


@jobs.command("show")
@click.argument("job_id", type=int, metavar="ID")
@json_option
@click.pass_obj
def show_job(options: Global, job_id: int, as_json: bool) -> None:
    """Show everything that is known of one job."""
    with opened(options.settings()) as catalogue:
        document = _document(catalogue, catalogue.jobs.get(job_id))
    if as_json:
        print_json(document)
    else:
        _print_job(document)


def _document(catalogue: Catalogue, job: Job) -> dict[str, Any]:
    stored = catalogue.arrivals.of_job(job.id)
    received = {
        "bytes": sum(instance.size for instance in stored),
        "first": min((instance.received_at for instance in stored), default=None),
        "last": max((instance.received_at for instance in stored), default=None),
        "sop_classes": sorted({instance.sop_class_uid for instance in stored}),
        "transfer_syntaxes": sorted({instance.transfer_syntax_uid for instance in stored}),
    }
    return {
        "job": asdict(job),
        "received": received,
        "history": [_fields(row) for row in catalogue.jobs.history(job.id)],
        "steps": [_fields(row) for row in catalogue.jobs.steps(job.id)],
        "results": [asdict(item) for item in catalogue.jobs.results(job.id)],
        "deliveries": [_fields(row) for row in catalogue.deliveries.of_job(job.id)],
        "receipts": [asdict(item) for item in catalogue.deliveries.receipts(job.id)],
    }


def _fields(row: Any) -> dict[str, Any]:
    """A row of the catalogue without its keys."""
    return {name: value for name, value in row._mapping.items() if name not in {"id", "job_id"}}


def _print_job(document: dict[str, Any]) -> None:
    job = document["job"] | {"received": size(document["received"]["bytes"])}
    names = {
        "id": "job", "state": "state", "reason": "reason", "revision": "revision", "evidence": "complete by",
        "instances": "instances", "received": "received", "attempts": "attempts",
        "study_instance_uid": "study", "series_instance_uid": "series", "content_digest": "content",
        "created_at": "first instance", "completed_at": "complete at", "updated_at": "last change",
    }  # fmt: skip
    print_fields({label: job[key] for key, label in names.items()})
    for title, key, columns in (
        ("History", "history", ("at", "event", "state", "reason")),
        ("Steps", "steps", ("attempt", "name", "started_at", "seconds")),
        ("Deliveries", "deliveries", ("destination", "state", "attempts", "next_attempt_at", "last_error")),
        ("Receipts", "receipts", ("destination", "status", "delivered_at", "sop_instance_uid")),
    ):
        _print_section(title, document[key], columns)
    results = [item | {"size": size(item["size"])} for item in document["results"]]
    _print_section("Results", results, ("kind", "size", "sop_instance_uid", "path"))


def _print_section(title: str, rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    if rows:
        print_heading(title)
        print_table(
            [name.removesuffix("_at") for name in columns], [[row[name] for name in columns] for row in rows]
        )


@jobs.command("retry")
@click.argument("job_ids", type=int, nargs=-1, required=True, metavar="ID...")
@click.option("--deliver-only", is_flag=True, help="Send the recorded results again, without segmenting.")
@json_option
@click.pass_obj
def retry_jobs(options: Global, job_ids: Sequence[int], deliver_only: bool, as_json: bool) -> None:
    """Start final jobs again, or send their results again.

    A running node takes them up within seconds. Running a job again writes the same objects with the same
    UIDs. Exit code 4 where one of the jobs could not be started again.
    """
    settings = options.settings()
    outcomes: list[dict[str, Any]] = []
    with opened(settings) as catalogue:
        for job_id in job_ids:
            try:
                job = _retry(catalogue, settings, job_id, deliver_only=deliver_only)
                outcomes.append({"id": job_id, "state": job.state, "error": None})
            except (JobUnknown, TransitionRefused) as error:
                outcomes.append({"id": job_id, "state": None, "error": error_document(error)})
    if as_json:
        print_json(outcomes)
    else:
        for outcome in outcomes:
            failure = outcome["error"]
            click.echo(
                f"{failure['name']}: {failure['sentence']} {failure['remedy']}".rstrip()
                if failure
                else f"Job {outcome['id']}: {outcome['state']}"
            )
    if any(outcome["error"] for outcome in outcomes):
        raise click.exceptions.Exit(Exit.INCOMPLETE)


def _retry(catalogue: Catalogue, settings: Settings, job_id: int, *, deliver_only: bool) -> Job:
    if not deliver_only:
        return catalogue.jobs.retry(job_id)
    catalogue.jobs.get(job_id)
    if not catalogue.jobs.results(job_id):
        raise TransitionRefused(
            f"Job {job_id} has no recorded results to send.", remedy="Retry it without --deliver-only."
        )
    names = [destination.name for destination in settings.destinations]
    if not names:
        raise SettingsInvalid("No destination is configured.", remedy="Add a [[destinations]] table.")
    catalogue.deliveries.redeliver(job_id, names)
    return catalogue.jobs.get(job_id)


@jobs.command("refusals")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The newest so many.")
@json_option
@click.pass_obj
def list_refusals(options: Global, limit: int, as_json: bool) -> None:
    """List received objects that were refused; the path leads to their bytes in the quarantine."""
    with opened(options.settings()) as catalogue:
        found = [_fields(row) for row in catalogue.arrivals.refusals(limit)]
    if as_json:
        print_json(found)
        return
    columns = ("at", "name", "calling_ae", "address", "path", "sentence")
    print_table(columns, [[row[name] for name in columns] for row in found])
