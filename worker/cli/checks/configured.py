"""Whether what is configured can work."""

import ipaddress
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicom_node.errors import CatalogueUnavailable
from dicom_node.settings import DestinationSettings, Settings
from models.errors import ModelsError
from models.registry import Registry
from worker.cli.checks.findings import Finding, Level, error, ok, warning
from worker.cli.checks.surroundings import existing

_BROKERS = ("redis://", "rediss://", "redis+socket://")


def ae_titles(settings: Settings) -> Iterator[Finding]:
    """AE titles of this node and its peers (PS3.5 6.2)."""
    titles = [("node.ae_title", settings.node.ae_title)]
    titles += [(f"destination {item.name}", item.ae_title) for item in settings.destinations if item.ae_title]
    titles += [("listener.allowed_calling_ae", title) for title in settings.listener.allowed_calling_ae]
    for subject, title in titles:
        usable = title.isascii() and title.isprintable() and "\\" not in title and title == title.strip()
        if not 1 <= len(title) <= 16 or not usable:
            remedy = "Take 1 to 16 ASCII characters, no backslash, no space at the ends."
            yield error(subject, f"{title!r} is no AE title.", remedy)


def exposure(settings: Settings) -> Iterator[Finding]:
    """Who can reach the listener."""
    host = settings.listener.host
    if _loopback(host):
        remedy = "Set listener.host to the address in the network of the senders."
        yield warning("access", f"It listens on {host}: no other machine can send to it.", remedy)
    elif not settings.listener.allowed_calling_ae:
        remedy = "List the senders in listener.allowed_calling_ae."
        yield warning("access", "Every peer that reaches the port may send.", remedy)
    else:
        yield ok("access", f"{len(settings.listener.allowed_calling_ae)} calling AE titles may send.")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def catalogue(settings: Settings) -> Iterator[Finding]:
    """Whether the catalogue opens, with the schema of this program."""
    from worker.cli.jobs import missing_catalogue, opened

    if missing_catalogue(settings):
        yield ok("catalogue", "There is none yet; the first start makes it.")
        return
    try:
        with opened(settings) as found:
            counts = found.counts()
            newest = max((job.updated_at for job in found.jobs.listed(limit=1)), default=None)
    except CatalogueUnavailable as failure:
        yield error("catalogue", failure.sentence, failure.advice)
        return
    known = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    yield ok("catalogue", f"It opens, its schema is current; jobs: {known or 'none yet'}.")
    if newest is not None and newest > datetime.now(UTC) + timedelta(minutes=1):
        sentence = f"The newest job was changed at {newest:%Y-%m-%d %H:%M} UTC, which is in the future."
        yield error("clock", sentence, "Set the clock and switch time synchronisation on.")


def model_packages(settings: Settings) -> Iterator[Finding]:
    """Whether the enabled model packages are installed and whole."""
    if not settings.models.enabled:
        yield warning("models", "No model is enabled: every series is skipped.", "Set models.enabled.")
    try:
        registry = Registry(settings.models.folders)
    except ModelsError as failure:
        yield error("models", failure.sentence, failure.advice)
        return
    for name in settings.models.enabled:
        try:
            package = registry.get(name)
            registry.verify(package)
        except ModelsError as failure:
            yield error(f"model {name}", failure.sentence, failure.advice)
        else:
            yield ok(f"model {name}", f"Version {package.manifest.model.version} is whole.")


def destinations(settings: Settings) -> Iterator[Finding]:
    """Whether results can go where they should."""
    if not settings.destinations:
        remedy = "Add a [[destinations]] table to segnode.toml."
        yield warning("destinations", "There is none: results stay in the data folder.", remedy)
    for item in settings.destinations:
        subject = f"destination {item.name}"
        troubles = list(_troubles(item, settings))
        yield from (Finding(level, subject, sentence, remedy) for level, sentence, remedy in troubles)
        if not troubles:
            yield ok(subject, f"{item.kind}, gets {' and '.join(item.objects)}.")


def _troubles(item: DestinationSettings, settings: Settings) -> Iterator[tuple[Level, str, str]]:
    if not item.objects:
        yield Level.WARNING, "It gets no object at all.", 'Set objects = ["SEG", "SR"] or remove it.'
    if item.kind == "folder" and item.path and not _takes_files(existing(item.path)):
        yield Level.ERROR, f"{existing(item.path)} may not be written.", "Name another path, or give access."
    if item.kind == "c-store" and _loopback(item.host) and item.port == settings.listener.port:
        yield Level.ERROR, "It is this node itself.", "Set host and port of the PACS."
    if item.kind == "stow-rs":
        yield from _credentials(item)


def _takes_files(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _credentials(item: DestinationSettings) -> Iterator[tuple[Level, str, str]]:
    if bool(item.username) != bool(item.password_file):
        yield Level.ERROR, "username and password_file belong together.", "Set both or neither."
    elif item.password_file:
        try:
            mode = item.password_file.stat().st_mode
            item.password_file.read_bytes()
        except OSError as failure:
            yield Level.ERROR, f"The password file cannot be read: {failure.strerror}.", "Set password_file."
            return
        if mode & (stat.S_IRGRP | stat.S_IROTH):
            yield Level.WARNING, "Others may read the password file.", f"chmod 600 {item.password_file}"
        if item.url.startswith("http://"):
            yield Level.WARNING, "The password travels unencrypted.", "Use an https:// URL."


def broker(settings: Settings) -> Iterator[Finding]:
    """Whether the broker is of a kind that segnode knows."""
    url = settings.queue.broker
    if not url:
        yield ok("broker", "A folder under the data folder, for one machine.")
    elif url.startswith(_BROKERS):
        yield ok("broker", "Redis; `--live` asks whether it answers.")
    else:
        yield error("broker", "queue.broker is of no supported kind.", f"Begin with {', '.join(_BROKERS)}.")
