"""When something failed, what then: one table, apart from the work."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from dicom_node.errors import CatalogueUnavailable, DeliveryFailed, NotAVolume
from dicom_node.records import JobEvent
from models.errors import SegnodeError
from worker.errors import EngineFailed, EngineUnavailable

POSTPONE_S = (5.0, 30.0, 120.0, 600.0, 1800.0)
"""Waits before a job that failed for a passing reason (no memory, no disk, an engine) starts again."""

DELIVER_S = (2.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
"""Waits before a delivery is tried again; the last one repeats until `give_up_days`."""

REFUSED_S = 900.0
"""Least wait after a refusal that will not change by itself: somebody has to change the PACS first."""


_PASSING = (OSError, MemoryError, CatalogueUnavailable, EngineFailed, EngineUnavailable)


@dataclass(frozen=True)
class Verdict:
    """What becomes of a job: an event and, for POSTPONED, the wait."""

    event: JobEvent
    reason: str
    wait: timedelta = timedelta()


def after_failure(error: BaseException, postponements: int) -> Verdict:
    """The verdict on a job whose work raised `error`.

    What lies in the data (a gap, a broken file) fails at once and by name: waiting changes nothing. What
    lies in the machine (disk, memory, engine) is tried again for as long as the waits last, then fails.
    """
    reason = named(error)
    if isinstance(error, NotAVolume):
        return Verdict(JobEvent.SKIPPED, reason)
    passing = any(isinstance(item, _PASSING) for item in (error, error.__cause__))
    if not passing or postponements >= len(POSTPONE_S):
        return Verdict(JobEvent.FAILED, reason)
    return Verdict(JobEvent.POSTPONED, reason, timedelta(seconds=POSTPONE_S[postponements]))


def next_delivery(
    error: DeliveryFailed, attempts: int, now: datetime, give_up_at: datetime
) -> datetime | None:
    """When to try a delivery again after `attempts` tries; None once `give_up_at` has passed."""
    if now >= give_up_at:
        return None
    wait = DELIVER_S[min(attempts, len(DELIVER_S)) - 1]
    if error.permanent:
        wait = max(wait, REFUSED_S)
    return now + timedelta(seconds=wait)


def named(error: BaseException) -> str:
    """The error's name and sentence; of a foreign error only type and place, as it may quote the patient."""
    if isinstance(error, SegnodeError):
        return error.reason()
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f" in {trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}" if trace else ""
    code = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
    return f"{type(error).__name__}{code}{place}"
