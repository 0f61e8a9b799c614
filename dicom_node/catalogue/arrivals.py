"""What came in: associations, instances, refusals. The real `records.Ledger`."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, and_, insert, select, update

from dicom_node.catalogue.database import Database
from dicom_node.catalogue.recording import Recorder
from dicom_node.catalogue.schema import associations, instances, job_instances, refusals
from dicom_node.records import (
    AssociationEnding,
    Peer,
    SliceHeader,
    StoredInstance,
)


class Arrivals:
    """The ledger of one listener; every call returns only when its record is durable.

    `listener` names the process: what it left open when it died is closed as LOST by its successor.
    """

    def __init__(self, database: Database, listener: str = "listener") -> None:
        self._database = database
        self._listener = listener
        self._recorder = Recorder(database)

    def close_lost(self) -> int:
        """Closes what an earlier process of this name left open; how many there were."""
        with self._database.write() as connection:
            return connection.execute(
                update(associations)
                .where(associations.c.ending.is_(None), associations.c.listener == self._listener)
                .values(ending=AssociationEnding.LOST, ended_at=datetime.now(UTC))
            ).rowcount

    def open_association(self, peer: Peer) -> int:
        """Records that a peer connected; the number identifies the association."""
        with self._database.write() as connection:
            row = connection.execute(
                insert(associations).values(
                    listener=self._listener,
                    calling_ae=peer.calling_ae,
                    called_ae=peer.called_ae,
                    address=peer.address,
                    opened_at=datetime.now(UTC),
                )
            )
            return int(row.inserted_primary_key[0])  # type: ignore[index]

    def close_association(self, association_id: int, ending: AssociationEnding) -> None:
        """Records how the association ended."""
        with self._database.write() as connection:
            connection.execute(
                update(associations)
                .where(associations.c.id == association_id, associations.c.ending.is_(None))
                .values(ending=ending, ended_at=datetime.now(UTC))
            )

    def record(self, instance: StoredInstance) -> None:
        """Records the instance and, in the same transaction, that its series is being received.

        The same content again changes nothing. Other content under a known SOP Instance UID becomes the
        current one, and the series is received anew.
        """
        with self._database.write() as connection:
            self._recorder.record(connection, instance)

    def known(self, sop_instance_uid: str, digest: str) -> bool:
        """Whether exactly this content is recorded and current."""
        with self._database.read() as connection:
            return (
                connection.execute(
                    select(instances.c.id).where(
                        instances.c.sop_instance_uid == sop_instance_uid,
                        instances.c.digest == digest,
                        instances.c.current,
                    )
                ).first()
                is not None
            )

    def digests(self) -> set[str]:
        """Digests of all recorded content, for the sweep of the spool."""
        with self._database.read() as connection:
            return set(connection.scalars(select(instances.c.digest)))

    def record_refusal(self, association_id: int | None, name: str, sentence: str, path: str = "") -> None:
        """Records an object that was not taken; `path` of its bytes in the quarantine, if they are there."""
        with self._database.write() as connection:
            connection.execute(
                insert(refusals).values(
                    at=datetime.now(UTC),
                    association_id=association_id,
                    name=name,
                    sentence=sentence,
                    path=path,
                )
            )

    def refusals(self, limit: int = 100) -> list[Row[Any]]:
        """The latest refusals, newest first: at, name, sentence, path, calling_ae, address."""
        with self._database.read() as connection:
            return list(
                connection.execute(
                    select(refusals, associations.c.calling_ae, associations.c.address)
                    .outerjoin(associations, associations.c.id == refusals.c.association_id)
                    .order_by(refusals.c.id.desc())
                    .limit(limit)
                )
            )

    def endings(self, job_study: str, job_series: str) -> list[str | None]:
        """How each association that brought current instances of the series ended (None: still open),
        in the order in which they were opened."""
        with self._database.read() as connection:
            return list(
                connection.scalars(
                    select(associations.c.ending)
                    .join(instances, instances.c.association_id == associations.c.id)
                    .where(current_of(job_study, job_series))
                    .group_by(associations.c.id, associations.c.ending)
                    .order_by(associations.c.id)
                )
            )

    def headers(self, job_study: str, job_series: str) -> list[SliceHeader]:
        """Headers of the current instances of the series."""
        with self._database.read() as connection:
            rows = connection.scalars(select(instances.c.header).where(current_of(job_study, job_series)))
            return [header_from(row) for row in rows]

    def of_job(self, job_id: int) -> list[StoredInstance]:
        """The instances that belong to the job, as they were when its series was complete."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(instances)
                .join(job_instances, job_instances.c.instance_id == instances.c.id)
                .where(job_instances.c.job_id == job_id)
            ).mappings()
            return [_instance(dict(row)) for row in rows]


def current_of(study: str, series: str) -> Any:
    """SQL condition: current instances of one series."""
    return and_(
        instances.c.series_instance_uid == series,
        instances.c.study_instance_uid == study,
        instances.c.current,
    )


def header_from(data: dict[str, Any]) -> SliceHeader:
    """A header as JSON gave it back."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return SliceHeader(**values)


def _instance(row: dict[str, Any]) -> StoredInstance:
    for column in ("id", "current"):
        row.pop(column)
    return StoredInstance(**row | {"header": header_from(row["header"])})
