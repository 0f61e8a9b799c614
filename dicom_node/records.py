"""The facts that travel through the node, as plain frozen data, and the one function that owns the states."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from dicom_node.errors import TransitionRefused


class JobState(StrEnum):
    """Where a job stands; the last three are final."""

    RECEIVING = "RECEIVING"
    READY = "READY"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DELIVERING = "DELIVERING"
    DONE = "DONE"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"

    @property
    def final(self) -> bool:
        """Whether nothing more happens to the job by itself."""
        return self in {JobState.DONE, JobState.SKIPPED, JobState.FAILED}


class JobEvent(StrEnum):
    """What can happen to a job."""

    COMPLETED = "completed"  # evidence says that the series is whole
    SUBMITTED = "submitted"  # handed to the broker
    CLAIMED = "claimed"  # a worker took it, with a lease
    LEASE_LOST = "lease-lost"  # its worker died or was cut off
    POSTPONED = "postponed"  # a passing failure; tried again
    WRITTEN = "written"  # results verified and recorded
    DELIVERED = "delivered"  # every destination has every object
    SKIPPED = "skipped"  # nothing to do, with the reason
    SUPERSEDED = "superseded"  # a later revision takes its place
    FAILED = "failed"
    RETRIED = "retried"  # by a person
    REDELIVERED = "redelivered"  # by a person: the recorded results again


_S, _E = JobState, JobEvent
_TRANSITIONS: dict[tuple[JobState, JobEvent], JobState] = {
    (_S.RECEIVING, _E.COMPLETED): _S.READY,
    (_S.RECEIVING, _E.SKIPPED): _S.SKIPPED,
    (_S.READY, _E.SUBMITTED): _S.QUEUED,
    (_S.QUEUED, _E.SUBMITTED): _S.QUEUED,
    (_S.READY, _E.CLAIMED): _S.RUNNING,
    (_S.QUEUED, _E.CLAIMED): _S.RUNNING,
    (_S.RUNNING, _E.LEASE_LOST): _S.READY,
    (_S.RUNNING, _E.POSTPONED): _S.READY,
    (_S.RUNNING, _E.WRITTEN): _S.DELIVERING,
    (_S.RUNNING, _E.SKIPPED): _S.SKIPPED,
    (_S.RUNNING, _E.FAILED): _S.FAILED,
    (_S.READY, _E.FAILED): _S.FAILED,
    (_S.QUEUED, _E.FAILED): _S.FAILED,
    (_S.READY, _E.SUPERSEDED): _S.SKIPPED,
    (_S.QUEUED, _E.SUPERSEDED): _S.SKIPPED,
    (_S.RUNNING, _E.SUPERSEDED): _S.SKIPPED,
    (_S.DELIVERING, _E.DELIVERED): _S.DONE,
    (_S.DELIVERING, _E.FAILED): _S.FAILED,
    (_S.FAILED, _E.RETRIED): _S.READY,
    (_S.SKIPPED, _E.RETRIED): _S.READY,
    (_S.DONE, _E.RETRIED): _S.READY,
    (_S.FAILED, _E.REDELIVERED): _S.DELIVERING,
    (_S.DONE, _E.REDELIVERED): _S.DELIVERING,
}


def next_state(state: JobState, event: JobEvent) -> JobState:
    """The state after the event; raises TransitionRefused where the job does not take it."""
    try:
        return _TRANSITIONS[state, event]
    except KeyError:
        raise TransitionRefused(f"A job that is {state} does not take '{event}'.") from None


@dataclass(frozen=True)
class Peer:
    """Who opened an association: AE titles and address."""

    calling_ae: str
    called_ae: str
    address: str


class AssociationEnding(StrEnum):
    """How an association ended; LOST: the listener died while it was open."""

    RELEASED = "released"
    ABORTED = "aborted"
    LOST = "lost"


@dataclass(frozen=True)
class SliceHeader:
    """What completion and routing need to know of one instance; None where the data set does not say.

    `position` (x, y, z) and `orientation` (row cosines, column cosines): PS3.3 C.7.6.2, LPS mm.
    `pixel_spacing` (between rows, between columns) in mm.
    """

    modality: str = ""
    rows: int | None = None
    columns: int | None = None
    frames: int = 1
    instance_number: int | None = None
    position: tuple[float, float, float] | None = None
    orientation: tuple[float, float, float, float, float, float] | None = None
    pixel_spacing: tuple[float, float] | None = None
    slice_thickness: float | None = None
    image_type: tuple[str, ...] = ()
    body_part: str = ""
    frame_of_reference_uid: str = ""
    series_description: str = ""
    manufacturer: str = ""


@dataclass(frozen=True)
class StoredInstance:
    """One SOP Instance that lies safely in the spool.

    `path` is relative to the spool's folder; `digest` is the SHA-256 of the data set's bytes as received
    (without preamble and file meta), so the same bytes have the same digest whatever the transport.
    """

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    digest: str
    size: int
    path: str
    received_at: datetime
    association_id: int | None
    patient_id: str
    accession_number: str
    header: SliceHeader


class Ledger(Protocol):
    """Where the listener records what it takes. The catalogue is the real one; MemoryLedger the fake.

    Each call returns only when the record is durable.
    """

    def open_association(self, peer: Peer) -> int:
        """Records that a peer connected; the number identifies the association."""

    def close_association(self, association_id: int, ending: AssociationEnding) -> None:
        """Records how the association ended."""

    def record(self, instance: StoredInstance) -> None:
        """Records the instance; after this call the listener answers Success.

        The same SOP Instance UID with the same digest again changes nothing (but the time last seen).
        """

    def known(self, sop_instance_uid: str, digest: str) -> bool:
        """Whether exactly this content is recorded already."""

    def record_refusal(self, association_id: int | None, name: str, sentence: str, path: str = "") -> None:
        """Records an object that was not taken; `path` of its bytes in the quarantine, if they are there."""


@dataclass(frozen=True)
class SeriesSummary:
    """A complete series as routing sees it."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    instances: int
    header: SliceHeader
    coverage_mm: float
    """Extent along the slice normal, first to last slice centre plus one spacing, in mm."""
    slice_spacing_mm: float


@dataclass(frozen=True)
class Job:
    """One revision of one series on its way through the node."""

    id: int
    study_instance_uid: str
    series_instance_uid: str
    revision: int
    state: JobState
    reason: str
    evidence: str
    content_digest: str
    attempts: int
    """Starts since the job last ended cleanly; more than a few mean that it kills its workers."""
    postponements: int
    priority: int
    lease_token: int
    created_at: datetime
    completed_at: datetime | None
    """When the evidence said that the series is whole; the results carry this time."""
    updated_at: datetime
    instances: int


@dataclass(frozen=True)
class ResultObject:
    """One object that segnode wrote, verified, and may send.

    `path` is relative to the data folder's results; `kind` is "SEG" or "SR".
    """

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    size: int
    digest: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeliveryReceipt:
    """What a destination answered for one object."""

    destination: str
    sop_instance_uid: str
    status: str
    """For example "0x0000" (C-STORE), "200 stored" (STOW-RS), "written" (folder)."""
    delivered_at: datetime


@dataclass(frozen=True)
class Destination:
    """One configured place for results; `objects` are the kinds it wants."""

    name: str
    kind: str
    objects: tuple[str, ...] = ("SEG", "SR")


class Deliverer(Protocol):
    """Sends result objects to one destination. `folder` holds the objects' relative paths."""

    def deliver(self, objects: tuple[ResultObject, ...], folder: Path) -> tuple[DeliveryReceipt, ...]:
        """Sends all; returns a receipt for each, or raises DeliveryFailed (an object may be sent again)."""

    def probe(self) -> str:
        """Asks the destination whether it is there; a sentence, or raises DeliveryFailed."""
