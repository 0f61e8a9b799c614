"""Whether the peers answer: destinations, broker, the running listener."""

from collections.abc import Iterator

from dicom_node.delivery.build import build_deliverer
from dicom_node.errors import DeliveryFailed, QueueUnavailable
from dicom_node.queue import CeleryQueue, make_app
from dicom_node.settings import DestinationSettings, Settings
from worker.cli.checks.findings import Finding, error, ok, warning
from worker.cli.checks.surroundings import running

_EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (only read, to reach it from here)


def destinations(settings: Settings) -> Iterator[Finding]:
    """Asks each destination whether it is there."""
    for item in settings.destinations:
        subject = f"destination {item.name}"
        try:
            yield ok(subject, build_deliverer(item, settings.node.ae_title).probe())
        except DeliveryFailed as failure:
            yield error(subject, failure.sentence, failure.advice)


def broker(settings: Settings) -> Iterator[Finding]:
    """Asks Redis whether anything waits."""
    if not settings.queue.broker:
        return
    try:
        waits = not CeleryQueue(make_app(settings)).empty("segment")
    except QueueUnavailable as failure:
        remedy = "Start it, or correct queue.broker; no job is lost meanwhile."
        yield error("broker", failure.sentence, remedy)
    else:
        yield ok("broker", f"It answers; {'jobs wait' if waits else 'no job waits'}.")


def listener(settings: Settings) -> Iterator[Finding]:
    """C-ECHO to the listener, where it runs."""
    if not running(settings):
        yield warning("listener", "It does not run.", "`segnode run` starts the node.")
        return
    host, title = settings.listener.host, settings.node.ae_title
    itself = DestinationSettings(
        name="itself", kind="c-store", host=_EVERY_INTERFACE.get(host, host),
        port=settings.listener.port, ae_title=title,
    )  # fmt: skip
    try:
        yield ok("listener", build_deliverer(itself, title).probe())
    except DeliveryFailed as failure:
        if title in settings.listener.allowed_calling_ae or not settings.listener.allowed_calling_ae:
            yield error("listener", failure.sentence, "Look at the log of `segnode run`; start it again.")
        else:
            remedy = f"Expected: {title} is not in listener.allowed_calling_ae."
            yield warning("listener", failure.sentence, remedy)
