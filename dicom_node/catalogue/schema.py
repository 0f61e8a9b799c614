"""The tables of the catalogue. Times are UTC."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import Float, TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept as naive UTC, so that SQLite and PostgreSQL give back the same."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        return None if value is None else value.replace(tzinfo=UTC)


metadata = MetaData()
_UID = String(64)

associations = Table(
    "associations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("listener", String(80), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("ending", String(10)),
    Index("ix_associations_open", "ending", "listener"),
)

instances = Table(
    "instances",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_instance_uid", _UID, nullable=False),
    Column("series_instance_uid", _UID, nullable=False),
    Column("sop_instance_uid", _UID, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("sop_class_uid", _UID, nullable=False),
    Column("transfer_syntax_uid", _UID, nullable=False),
    Column("size", Integer, nullable=False),
    Column("path", String(200), nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("association_id", ForeignKey("associations.id")),
    Column("patient_id", String(64), nullable=False),
    Column("accession_number", String(16), nullable=False),
    Column("header", JSON, nullable=False),
    # False once the same SOP Instance UID came again with other content
    Column("current", Boolean, nullable=False),
    UniqueConstraint("series_instance_uid", "study_instance_uid", "sop_instance_uid", "digest"),
    Index("ix_instances_sop", "sop_instance_uid", "digest"),
)

refusals = Table(
    "refusals",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("association_id", ForeignKey("associations.id")),
    Column("name", String(60), nullable=False),
    Column("sentence", Text, nullable=False),
    Column("path", String(200), nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_instance_uid", _UID, nullable=False),
    Column("series_instance_uid", _UID, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", String(12), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("evidence", String(200), nullable=False, default=""),
    Column("content_digest", String(64), nullable=False, default=""),
    Column("priority", Integer, nullable=False, default=0),
    Column("attempts", Integer, nullable=False, default=0),
    Column("instances", Integer, nullable=False, default=0),
    Column("lease_token", Integer, nullable=False, default=0),
    Column("lease_owner", String(80), nullable=False, default=""),
    Column("lease_until", UtcDateTime),
    Column("postponements", Integer, nullable=False, default=0),
    Column("not_before", UtcDateTime),
    Column("submissions", Integer, nullable=False, default=0),
    Column("submitted_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_instance_at", UtcDateTime, nullable=False),
    Column("completed_at", UtcDateTime),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("series_instance_uid", "study_instance_uid", "revision"),
    Index("ix_jobs_state", "state", "submitted_at"),
)

job_instances = Table(
    "job_instances",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("instance_id", ForeignKey("instances.id"), primary_key=True),
)

transitions = Table(
    "transitions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("event", String(16), nullable=False),
    Column("state", String(12), nullable=False),
    Column("reason", Text, nullable=False),
    Index("ix_transitions_job", "job_id", "id"),
)

steps = Table(
    "steps",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("name", String(80), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("seconds", Float, nullable=False),
    Index("ix_steps_job", "job_id", "id"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("queue", String(10), nullable=False),
    UniqueConstraint("job_id", "queue"),
)

results = Table(
    "results",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("model", String(60), nullable=False),
    Column("kind", String(10), nullable=False),
    Column("sop_class_uid", _UID, nullable=False),
    Column("sop_instance_uid", _UID, nullable=False),
    Column("series_instance_uid", _UID, nullable=False),
    Column("study_instance_uid", _UID, nullable=False),
    Column("transfer_syntax_uid", _UID, nullable=False),
    Column("path", String(200), nullable=False),
    Column("size", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("facts", JSON, nullable=False),
    Index("ix_results_job", "job_id", "id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("destination", String(40), nullable=False),
    Column("state", String(10), nullable=False),  # PENDING DELIVERED GIVEN_UP
    Column("attempts", Integer, nullable=False, default=0),
    Column("created_at", UtcDateTime, nullable=False),
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("lease_owner", String(80), nullable=False, default=""),
    Column("lease_until", UtcDateTime),
    Column("last_error", Text, nullable=False, default=""),
    UniqueConstraint("job_id", "destination"),
    Index("ix_deliveries_due", "state", "next_attempt_at"),
)

receipts = Table(
    "receipts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("destination", String(40), nullable=False),
    Column("sop_instance_uid", _UID, nullable=False),
    Column("status", String(80), nullable=False),
    Column("delivered_at", UtcDateTime, nullable=False),
    UniqueConstraint("job_id", "destination", "sop_instance_uid"),
)
