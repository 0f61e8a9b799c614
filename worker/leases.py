"""Who a worker is, and how it shows that it still lives."""

import fcntl
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from dicom_node.errors import CatalogueUnavailable, LeaseLost, SettingsInvalid

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slot:
    """A place for one process of a role on this machine, held by a lock that ends with the process.

    Whoever holds the lock knows that an earlier holder of the same name is dead, and may take its leases.
    """

    owner: str
    lock: TextIOWrapper


def take_slot(folder: Path, role: str, most: int = 64) -> Slot:
    """The first free slot of the role; raises SettingsInvalid where all are taken."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(most):
        lock = (folder / f"{role}-{number}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return Slot(f"{socket.gethostname()}/{role}-{number}", lock)
    raise SettingsInvalid(f"{most} processes of the role '{role}' use this data folder already.")


@contextmanager
def kept(renew: Callable[[], None], lease_s: float) -> Iterator[None]:
    """Calls `renew` three times in each lease while the block runs.

    A lost lease only ends the renewing: the work's own last transaction checks the lease, and refuses.
    """
    done = threading.Event()

    def beat() -> None:
        while not done.wait(lease_s / 3):
            try:
                renew()
            except LeaseLost:
                log.warning("lease lost")
                return
            except CatalogueUnavailable:
                log.warning("the lease could not be renewed")

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
