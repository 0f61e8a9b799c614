"""Jobs: from RECEIVING to a final state, each transition with its time and reason."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, or_, select, update

from dicom_node.catalogue.arrivals import current_of
from dicom_node.catalogue.database import Database
from dicom_node.catalogue.recording import note
from dicom_node.catalogue.schema import instances, job_instances, jobs, outbox, results, steps, transitions
from dicom_node.content import content_digest
from dicom_node.errors import JobUnknown, LeaseLost
from dicom_node.records import Job, JobEvent, JobState, ResultObject, next_state

_WAITING = (JobState.READY, JobState.QUEUED)
_FIELDS = tuple(Job.__dataclass_fields__)


class Jobs:
    """The jobs of the node. Every change is a compare-and-set inside one durable transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- looking

    def get(self, job_id: int) -> Job:
        """One job; raises JobUnknown."""
        with self._database.read() as connection:
            return _job(row_of(connection, job_id))

    def listed(self, states: Sequence[JobState] = (), limit: int = 50) -> list[Job]:
        """The latest jobs, newest first, of all states or of the given ones."""
        query = select(jobs).order_by(jobs.c.id.desc()).limit(limit)
        if states:
            query = query.where(jobs.c.state.in_(states))
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(query)]

    def receiving(self) -> list[tuple[Job, datetime]]:
        """Jobs whose series is still being received, with the time of their last instance."""
        with self._database.read() as connection:
            rows = connection.execute(select(jobs).where(jobs.c.state == JobState.RECEIVING))
            return [(_job(row), row.last_instance_at) for row in rows]

    def history(self, job_id: int) -> list[Row[Any]]:
        """Every transition of the job: at, event, state, reason."""
        with self._database.read() as connection:
            query = select(transitions).where(transitions.c.job_id == job_id).order_by(transitions.c.id)
            return list(connection.execute(query))

    def steps(self, job_id: int) -> list[Row[Any]]:
        """The time of every step: attempt, name, started_at, seconds."""
        with self._database.read() as connection:
            return list(
                connection.execute(select(steps).where(steps.c.job_id == job_id).order_by(steps.c.id))
            )

    def results(self, job_id: int) -> tuple[ResultObject, ...]:
        """The objects that the job wrote."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(results).where(results.c.job_id == job_id).order_by(results.c.id)
            )
            names = ResultObject.__dataclass_fields__
            found = [{name: getattr(row, name) for name in names} for row in rows]
            return tuple(ResultObject(**values | {"path": Path(values["path"])}) for values in found)

    # --- completion

    def complete(self, job: Job, last_instance_at: datetime, evidence: str) -> Job | None:
        """RECEIVING -> READY with the instances as they are now, and the outbox row, in one transaction.

        None where another instance came in meanwhile. A series whose content equals that of an earlier
        revision is SKIPPED; waiting earlier revisions are superseded.
        """
        with self._database.write() as connection:
            row = row_of(connection, job.id)
            if row.state != JobState.RECEIVING or row.last_instance_at != last_instance_at:
                return None
            found = connection.execute(
                select(instances.c.id, instances.c.sop_instance_uid, instances.c.digest).where(
                    current_of(job.study_instance_uid, job.series_instance_uid)
                )
            ).all()
            digest = content_digest((item.sop_instance_uid, item.digest) for item in found)
            connection.execute(
                insert(job_instances), [{"job_id": job.id, "instance_id": item.id} for item in found]
            )
            values = {
                "evidence": evidence, "content_digest": digest, "instances": len(found),
                "completed_at": datetime.now(UTC),
            }  # fmt: skip
            twin = self._earlier(connection, job, digest)
            if twin is not None:
                reason = f"the content equals that of revision {twin}"
                move(connection, row, JobEvent.SKIPPED, reason, values)
            else:
                self._supersede(connection, job)
                move(connection, row, JobEvent.COMPLETED, evidence, values)
                post(connection, self._database, job.id, "segment")
            return _job(row_of(connection, job.id))

    def _earlier(self, connection: Connection, job: Job, digest: str) -> int | None:
        query = select(jobs.c.revision).where(
            _same_series(job), jobs.c.content_digest == digest, jobs.c.state != JobState.FAILED
        )
        found: int | None = connection.scalar(query)
        return found

    def _supersede(self, connection: Connection, job: Job) -> None:
        query = select(jobs).where(_same_series(job), jobs.c.state.in_(_WAITING), jobs.c.id < job.id)
        for row in connection.execute(query).all():
            move(connection, row, JobEvent.SUPERSEDED, f"superseded by revision {job.revision}")
            _unpost(connection, row.id)

    # --- the broker

    def to_submit(self, limit: int = 100) -> list[tuple[int, int, str]]:
        """Outbox rows: (row id, job id, queue), urgent and old ones first."""
        with self._database.read() as connection:
            query = (
                select(outbox.c.id, outbox.c.job_id, outbox.c.queue)
                .join(jobs, jobs.c.id == outbox.c.job_id)
                .where(or_(jobs.c.not_before.is_(None), jobs.c.not_before <= datetime.now(UTC)))
                .order_by(jobs.c.priority.desc(), outbox.c.id)
                .limit(limit)
            )
            return [(row.id, row.job_id, row.queue) for row in connection.execute(query)]

    def mark_submitted(self, job_id: int) -> bool:
        """Before a job goes to the broker: READY -> QUEUED. False where it needs no submission any more."""
        with self._database.write() as connection:
            row = row_of(connection, job_id)
            now = datetime.now(UTC)
            values = {"submitted_at": now, "submissions": row.submissions + 1}
            if row.state == JobState.READY:
                move(connection, row, JobEvent.SUBMITTED, "", values)
            elif row.state in {JobState.QUEUED, JobState.DELIVERING}:
                connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))
            else:
                _unpost(connection, job_id)
                return False
            return True

    def submitted(self, outbox_id: int) -> None:
        """After the broker took it: the outbox row is done."""
        with self._database.write() as connection:
            connection.execute(delete(outbox).where(outbox.c.id == outbox_id))

    def repost_unclaimed(self, older_than: timedelta, *, broker_empty: bool) -> list[int]:
        """Posts QUEUED jobs again that the broker seems to have lost; their numbers.

        With an empty broker everything unclaimed for `older_than` is lost. Otherwise a job waits 30 times
        that, doubled with every submission: a second message for a job is harmless, but not for nothing.
        """
        now = datetime.now(UTC)
        with self._database.write() as connection:
            query = select(jobs).where(
                jobs.c.state == JobState.QUEUED, jobs.c.submitted_at < now - older_than,
                jobs.c.id.not_in(select(outbox.c.job_id)),
            )  # fmt: skip
            lost = [
                row.id for row in connection.execute(query)
                if broker_empty or now - row.submitted_at > 30 * older_than * 2 ** min(row.submissions, 10)
            ]  # fmt: skip
            for job_id in lost:
                post(connection, self._database, job_id, "segment")
            return lost

    # --- the work

    def claim(self, job_id: int, owner: str, lease_s: float) -> Job | None:
        """READY or QUEUED -> RUNNING under a lease; None where somebody else was first or nothing is to do.

        The attempt is counted before the work starts. The lease token fences off an earlier holder.
        """
        now = datetime.now(UTC)
        with self._database.write() as connection:
            row = row_of(connection, job_id)
            if row.state not in _WAITING or (row.not_before and row.not_before > now):
                return None
            values = {
                "attempts": row.attempts + 1, "lease_token": row.lease_token + 1, "lease_owner": owner,
                "lease_until": now + timedelta(seconds=lease_s),
            }  # fmt: skip
            move(connection, row, JobEvent.CLAIMED, f"attempt {row.attempts + 1} by {owner}", values)
            _unpost(connection, job_id)
            return _job(row_of(connection, job_id))

    def renew(self, job: Job, lease_s: float) -> None:
        """Keeps the lease; raises LeaseLost where another worker may hold the job."""
        with self._database.write() as connection:
            held(connection, job)
            until = datetime.now(UTC) + timedelta(seconds=lease_s)
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(lease_until=until))

    def record_step(self, job: Job, name: str, started_at: datetime, seconds: float) -> None:
        """Records how long a step took."""
        with self._database.write() as connection:
            values = {"job_id": job.id, "attempt": job.attempts, "name": name}
            connection.execute(insert(steps).values(**values, started_at=started_at, seconds=seconds))

    def end(self, job: Job, event: JobEvent, reason: str) -> None:
        """RUNNING -> SKIPPED or FAILED; raises LeaseLost."""
        with self._database.write() as connection:
            move(connection, held(connection, job), event, reason, {"lease_until": None})

    def postpone(self, job: Job, reason: str, not_before: datetime) -> None:
        """RUNNING -> READY, not before a time, since something else has to pass first; raises LeaseLost."""
        with self._database.write() as connection:
            values = {
                "lease_until": None,
                "attempts": 0,
                "postponements": job.postponements + 1,
                "not_before": not_before,
            }
            move(connection, held(connection, job), JobEvent.POSTPONED, reason, values)
            post(connection, self._database, job.id, "segment")

    def release(self, *, owner: str | None, max_attempts: int) -> list[int]:
        """Takes RUNNING jobs from workers that are gone: from `owner`, or from all whose lease has ended.

        Back to READY with an outbox row, or FAILED after `max_attempts` starts: it may be the job that
        kills the workers.
        """
        gone = jobs.c.lease_owner == owner if owner else jobs.c.lease_until < datetime.now(UTC)
        with self._database.write() as connection:
            rows = connection.execute(select(jobs).where(jobs.c.state == JobState.RUNNING, gone)).all()
            for row in rows:
                if row.attempts >= max_attempts:
                    reason = f"WorkerLost: its worker was lost {row.attempts} times; the job is set aside"
                    move(connection, row, JobEvent.FAILED, reason, {"lease_until": None})
                else:
                    move(connection, row, JobEvent.LEASE_LOST, "its worker was lost", {"lease_until": None})
                    post(connection, self._database, row.id, "segment")
            return [row.id for row in rows]

    def superseded(self, job: Job) -> int | None:
        """The later revision of the same series that is complete, if there is one."""
        with self._database.read() as connection:
            query = select(func.max(jobs.c.revision)).where(
                _same_series(job), jobs.c.revision > job.revision, jobs.c.completed_at.is_not(None)
            )
            found: int | None = connection.scalar(query)
            return found

    # --- a person

    def retry(self, job_id: int) -> Job:
        """Starts a final job anew, attempts counted from zero; raises TransitionRefused."""
        with self._database.write() as connection:
            row = row_of(connection, job_id)
            values: dict[str, Any] = {"attempts": 0, "postponements": 0, "submissions": 0, "not_before": None}
            move(connection, row, JobEvent.RETRIED, "retried by the operator", values)
            post(connection, self._database, job_id, "segment")
            return _job(row_of(connection, job_id))


def _same_series(job: Job) -> Any:
    return and_(
        jobs.c.series_instance_uid == job.series_instance_uid,
        jobs.c.study_instance_uid == job.study_instance_uid,
        jobs.c.id != job.id,
    )


def row_of(connection: Connection, job_id: int) -> Row[Any]:
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).first()
    if row is None:
        raise JobUnknown(f"There is no job {job_id}.")
    return row


def held(connection: Connection, job: Job) -> Row[Any]:
    """The job's row, where this lease still holds."""
    row = row_of(connection, job.id)
    if row.state != JobState.RUNNING or row.lease_token != job.lease_token:
        raise LeaseLost(f"Job {job.id} is {row.state} and no longer held by this worker.")
    return row


def move(
    connection: Connection, row: Row[Any], event: JobEvent, reason: str, values: dict[str, Any] | None = None
) -> None:
    """One transition, with its line of history."""
    state = next_state(JobState(row.state), event)
    changed = connection.execute(
        update(jobs)
        .where(jobs.c.id == row.id, jobs.c.state == row.state, jobs.c.lease_token == row.lease_token)
        .values(state=state, reason=reason, updated_at=datetime.now(UTC), **(values or {}))
    ).rowcount
    if not changed:
        raise LeaseLost(f"Job {row.id} was changed by somebody else meanwhile.")
    note(connection, row.id, event, state, reason)


def post(connection: Connection, database: Database, job_id: int, queue: str) -> None:
    connection.execute(database.insert_once(outbox).values(job_id=job_id, queue=queue))


def _unpost(connection: Connection, job_id: int) -> None:
    connection.execute(delete(outbox).where(outbox.c.job_id == job_id, outbox.c.queue == "segment"))


def _job(row: Row[Any]) -> Job:
    values = {name: getattr(row, name) for name in _FIELDS}
    return Job(**values | {"state": JobState(row.state)})
