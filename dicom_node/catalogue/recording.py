"""The hot path of the catalogue: one received instance, recorded with its series in one transaction.

The statements are built once; building them anew for every slice costs more than running them.
"""

from datetime import UTC, datetime

from sqlalchemy import Connection, and_, bindparam, func, insert, select, update

from dicom_node.catalogue.database import Database
from dicom_node.catalogue.schema import instances, jobs, transitions
from dicom_node.records import JobState, StoredInstance

_SAME = and_(
    instances.c.series_instance_uid == bindparam("series"),
    instances.c.study_instance_uid == bindparam("study"),
    instances.c.sop_instance_uid == bindparam("sop"),
)
_SERIES = and_(
    jobs.c.series_instance_uid == bindparam("series"), jobs.c.study_instance_uid == bindparam("study")
)
_IS_CURRENT = select(instances.c.current).where(_SAME, instances.c.digest == bindparam("content"))
_OUTDATE = (
    update(instances)
    .where(_SAME, instances.c.digest != bindparam("content"), instances.c.current)
    .values(current=False)
)
_RENEW = update(instances).where(_SAME, instances.c.digest == bindparam("content")).values(current=True)
_COUNT = (
    update(jobs)
    .where(_SERIES, jobs.c.state == JobState.RECEIVING)
    .values(last_instance_at=bindparam("now"), instances=jobs.c.instances + bindparam("more"))
)
_REVISIONS = select(func.count()).select_from(jobs).where(_SERIES)
_OPEN_JOB = select(jobs.c.id).where(_SERIES, jobs.c.state == JobState.RECEIVING)


class Recorder:
    """Writes instances and the RECEIVING jobs of their series."""

    def __init__(self, database: Database) -> None:
        self._insert = database.insert_once(instances)

    def record(self, connection: Connection, instance: StoredInstance) -> None:
        """Adds the instance; the same content again changes nothing.

        Other content under a known SOP Instance UID becomes the current one, and the series is received anew.
        """
        row = vars(instance) | {"header": vars(instance.header), "current": True}
        key = {
            "series": instance.series_instance_uid, "study": instance.study_instance_uid,
            "sop": instance.sop_instance_uid, "content": instance.digest,
        }  # fmt: skip
        if not connection.execute(self._insert, row).rowcount:
            if connection.scalar(_IS_CURRENT, key):
                return
            connection.execute(_RENEW, key)
        replaced = bool(connection.execute(_OUTDATE, key).rowcount)
        now = datetime.now(UTC)
        if not connection.execute(_COUNT, key | {"now": now, "more": int(not replaced)}).rowcount:
            _open_job(connection, instance, now)
        if replaced:
            uid = instance.sop_instance_uid
            sentence = f"SOP Instance UID {uid} came again with other content; the newer counts"
            note(connection, connection.scalar(_OPEN_JOB, key) or 0, "replaced", JobState.RECEIVING, sentence)


def _open_job(connection: Connection, instance: StoredInstance, now: datetime) -> None:
    """The next revision of the series begins."""
    series = {"series": instance.series_instance_uid, "study": instance.study_instance_uid}
    revision = (connection.scalar(_REVISIONS, series) or 0) + 1
    made = connection.execute(
        insert(jobs).values(
            study_instance_uid=instance.study_instance_uid,
            series_instance_uid=instance.series_instance_uid,
            revision=revision,
            state=JobState.RECEIVING,
            created_at=now,
            last_instance_at=now,
            updated_at=now,
            instances=1,
        )
    )
    reason = "" if revision == 1 else "instances arrived after the last revision"
    note(connection, made.inserted_primary_key[0], "received", JobState.RECEIVING, reason)  # type: ignore[index]


def note(connection: Connection, job_id: int, event: str, state: str, reason: str) -> None:
    """Writes one line of a job's history."""
    line = {"job_id": job_id, "at": datetime.now(UTC), "event": event, "state": state, "reason": reason}
    connection.execute(insert(transitions), line)
