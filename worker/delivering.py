"""One delivery task: sends a job's results to every destination whose time has come."""

import logging
from datetime import UTC, datetime, timedelta

from dicom_node.catalogue.deliveries import Delivery
from dicom_node.errors import DeliveryFailed, DestinationRefused
from worker.leases import kept
from worker.retries import named, next_delivery
from worker.wiring import Parts

log = logging.getLogger(__name__)


def deliver_job(parts: Parts, job_id: int) -> None:
    """Delivers what is due of the job. What fails is tried again later, by the table in `retries`.

    This is the other of the two outermost loops: no failure, foreseen or not, ends a delivery unnamed.
    """
    lease_s = parts.settings.worker.lease_s
    due = parts.catalogue.deliveries.claim_due(job_id, parts.owner, lease_s)

    def renew() -> None:
        parts.catalogue.deliveries.renew(job_id, parts.owner, lease_s)

    with kept(renew, lease_s):
        for delivery in due:
            _deliver(parts, delivery)


def _deliver(parts: Parts, delivery: Delivery) -> None:
    started = datetime.now(UTC)
    try:
        configured = parts.destination(delivery.destination)
        wanted = tuple(
            item for item in parts.catalogue.jobs.results(delivery.job_id) if item.kind in configured.objects
        )
        receipts = parts.deliverer(configured).deliver(wanted, parts.settings.results) if wanted else ()
    except DeliveryFailed as error:
        _failed(parts, delivery, error)
    except Exception as error:
        log.exception("a delivery could not be tried")
        _failed(parts, delivery, DestinationRefused(named(error)))
    else:
        parts.catalogue.deliveries.delivered(delivery, receipts)
        job = parts.catalogue.jobs.get(delivery.job_id)
        seconds = (datetime.now(UTC) - started).total_seconds()
        parts.catalogue.jobs.record_step(job, f"deliver to {delivery.destination}", started, seconds)
        log.info("delivered", extra={"destination": delivery.destination, "objects": len(receipts)})


def _failed(parts: Parts, delivery: Delivery, error: DeliveryFailed) -> None:
    days = parts.give_up_days(delivery.destination)
    give_up_at = delivery.created_at + timedelta(days=days)
    again = next_delivery(error, delivery.attempts, datetime.now(UTC), give_up_at)
    parts.catalogue.deliveries.failed(delivery, error.reason(), again)
    log.warning(
        "not delivered", extra={"destination": delivery.destination, "error": error.name, "again": again}
    )
