"""Results and where they went: a row for each job and destination, a receipt for each object."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, update

from dicom_node.catalogue.database import Database
from dicom_node.catalogue.jobs import held, move, post, row_of
from dicom_node.catalogue.schema import deliveries, jobs, outbox, receipts, results
from dicom_node.records import DeliveryReceipt, Job, JobEvent, JobState, ResultObject


@dataclass(frozen=True)
class Delivery:
    """One job's objects on their way to one destination."""

    id: int
    job_id: int
    destination: str
    attempts: int
    created_at: datetime


class Deliveries:
    """The outgoing side. A job is DONE when every destination has every object it wants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def written(
        self, job: Job, objects: Sequence[tuple[str, ResultObject]], destinations: Sequence[str]
    ) -> None:
        """RUNNING -> DELIVERING: the verified objects (with their model's name) and what is to be sent
        where, in one transaction; raises LeaseLost. Without a destination the job is DONE at once."""
        now = datetime.now(UTC)
        with self._database.write() as connection:
            row = held(connection, job)
            connection.execute(delete(results).where(results.c.job_id == job.id))
            rows = [
                asdict(item) | {"path": str(item.path), "job_id": job.id, "model": model}
                for model, item in objects
            ]
            if rows:
                connection.execute(insert(results), rows)
            move(connection, row, JobEvent.WRITTEN, "", {"lease_until": None})
            self._pend(connection, job.id, destinations, now)

    def redeliver(self, job_id: int, destinations: Sequence[str]) -> None:
        """Sends the recorded results of a final job again; raises TransitionRefused."""
        with self._database.write() as connection:
            move(connection, row_of(connection, job_id), JobEvent.REDELIVERED, "sent again by the operator")
            self._pend(connection, job_id, destinations, datetime.now(UTC))

    def _pend(self, connection: Connection, job_id: int, destinations: Sequence[str], now: datetime) -> None:
        connection.execute(delete(deliveries).where(deliveries.c.job_id == job_id))
        for name in destinations:
            values = {"job_id": job_id, "destination": name, "state": "PENDING"}
            connection.execute(insert(deliveries).values(**values, created_at=now, next_attempt_at=now))
        if destinations:
            post(connection, self._database, job_id, "deliver")
        else:
            move(connection, row_of(connection, job_id), JobEvent.DELIVERED, "no destination is configured")

    def due_jobs(self, *, broker_empty: bool, resubmit_after: timedelta) -> list[int]:
        """Posts jobs whose deliveries are due and not with the broker; their numbers."""
        now = datetime.now(UTC)
        patience = resubmit_after if broker_empty else 30 * resubmit_after
        with self._database.write() as connection:
            query = (
                select(deliveries.c.job_id)
                .distinct()
                .join(jobs, jobs.c.id == deliveries.c.job_id)
                .where(
                    _due(now),
                    jobs.c.state == JobState.DELIVERING,
                    or_(jobs.c.submitted_at.is_(None), jobs.c.submitted_at < now - patience),
                    deliveries.c.job_id.not_in(select(outbox.c.job_id)),
                )
            )
            found = list(connection.scalars(query))
            for job_id in found:
                post(connection, self._database, job_id, "deliver")
            return found

    def claim_due(self, job_id: int, owner: str, lease_s: float) -> list[Delivery]:
        """The job's deliveries whose time has come, each leased to the caller; the attempt is counted."""
        now = datetime.now(UTC)
        with self._database.write() as connection:
            rows = connection.execute(
                select(deliveries).where(deliveries.c.job_id == job_id, _due(now))
            ).all()
            for row in rows:
                connection.execute(
                    update(deliveries)
                    .where(deliveries.c.id == row.id)
                    .values(
                        lease_until=now + timedelta(seconds=lease_s),
                        lease_owner=owner,
                        attempts=row.attempts + 1,
                    )
                )
            connection.execute(delete(outbox).where(outbox.c.job_id == job_id, outbox.c.queue == "deliver"))
            return [
                Delivery(row.id, row.job_id, row.destination, row.attempts + 1, row.created_at)
                for row in rows
            ]

    def renew(self, job_id: int, owner: str, lease_s: float) -> None:
        """Keeps the leases that `owner` holds on the job's deliveries."""
        until = datetime.now(UTC) + timedelta(seconds=lease_s)
        with self._database.write() as connection:
            connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.job_id == job_id,
                    deliveries.c.lease_owner == owner,
                    deliveries.c.lease_until.is_not(None),
                )
                .values(lease_until=until)
            )

    def release(self, owner: str) -> list[int]:
        """Takes deliveries from a worker that is gone, so that they are due at once; their jobs."""
        held_by = and_(deliveries.c.lease_owner == owner, deliveries.c.lease_until.is_not(None))
        with self._database.write() as connection:
            found = list(connection.scalars(select(deliveries.c.job_id).distinct().where(held_by)))
            connection.execute(update(deliveries).where(held_by).values(lease_until=None))
            for job_id in found:
                post(connection, self._database, job_id, "deliver")
            return found

    def delivered(self, delivery: Delivery, answers: Sequence[DeliveryReceipt]) -> None:
        """The destination has every object; the job is DONE once all have."""
        with self._database.write() as connection:
            for answer in answers:
                key = and_(
                    receipts.c.job_id == delivery.job_id,
                    receipts.c.destination == delivery.destination,
                    receipts.c.sop_instance_uid == answer.sop_instance_uid,
                )
                connection.execute(delete(receipts).where(key))
                connection.execute(insert(receipts).values(job_id=delivery.job_id, **asdict(answer)))
            self._settle(connection, delivery, "DELIVERED", "")

    def failed(self, delivery: Delivery, reason: str, next_attempt_at: datetime | None) -> None:
        """Not delivered: tried again at `next_attempt_at`, or given up where that is None."""
        with self._database.write() as connection:
            if next_attempt_at is None:
                self._settle(connection, delivery, "GIVEN_UP", reason)
                return
            connection.execute(
                update(deliveries)
                .where(deliveries.c.id == delivery.id)
                .values(lease_until=None, last_error=reason, next_attempt_at=next_attempt_at)
            )
            connection.execute(
                update(jobs)
                .where(jobs.c.id == delivery.job_id, jobs.c.state == JobState.DELIVERING)
                .values(submitted_at=None, reason=f"{delivery.destination}: {reason}")
            )

    def _settle(self, connection: Connection, delivery: Delivery, state: str, reason: str) -> None:
        connection.execute(
            update(deliveries)
            .where(deliveries.c.id == delivery.id)
            .values(state=state, lease_until=None, last_error=reason)
        )
        rows = connection.execute(
            select(deliveries.c.state, deliveries.c.destination, deliveries.c.last_error).where(
                deliveries.c.job_id == delivery.job_id
            )
        ).all()
        job = row_of(connection, delivery.job_id)
        if job.state != JobState.DELIVERING or any(row.state == "PENDING" for row in rows):
            return
        lost = [f"{row.destination}: {row.last_error}" for row in rows if row.state == "GIVEN_UP"]
        event = JobEvent.FAILED if lost else JobEvent.DELIVERED
        move(connection, job, event, "; ".join(lost) or job_summary(connection, job))

    def of_job(self, job_id: int) -> list[Row[Any]]:
        """Every delivery of the job: destination, state, attempts, next_attempt_at, last_error."""
        with self._database.read() as connection:
            query = select(deliveries).where(deliveries.c.job_id == job_id).order_by(deliveries.c.id)
            return list(connection.execute(query))

    def receipts(self, job_id: int) -> list[DeliveryReceipt]:
        """What the destinations answered."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(receipts).where(receipts.c.job_id == job_id).order_by(receipts.c.id)
            )
            return [
                DeliveryReceipt(row.destination, row.sop_instance_uid, row.status, row.delivered_at)
                for row in rows
            ]


def job_summary(connection: Connection, job: Row[Any]) -> str:
    """One sentence on what a delivered job found."""
    facts = connection.scalars(select(results.c.facts).where(results.c.job_id == job.id))
    return "; ".join(sorted({str(item["summary"]) for item in facts if "summary" in item}))


def _due(now: datetime) -> Any:
    return and_(
        deliveries.c.state == "PENDING",
        deliveries.c.next_attempt_at <= now,
        or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until < now),
    )
