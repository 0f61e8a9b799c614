"""The ledger in memory, for tests and for the archive; it passes the same contract tests as the catalogue."""

import itertools
import threading
from dataclasses import dataclass

from dicom_node.records import AssociationEnding, Peer, StoredInstance


@dataclass(frozen=True)
class Refusal:
    """An object that was not taken."""

    association_id: int | None
    name: str
    sentence: str
    path: str


class MemoryLedger:
    """A `records.Ledger` that forgets everything with its process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._instances: dict[str, StoredInstance] = {}
        self.associations: dict[int, tuple[Peer, AssociationEnding | None]] = {}
        self.refusals: list[Refusal] = []

    def open_association(self, peer: Peer) -> int:
        """Records that a peer connected; the number identifies the association."""
        with self._lock:
            number = next(self._numbers)
            self.associations[number] = (peer, None)
        return number

    def close_association(self, association_id: int, ending: AssociationEnding) -> None:
        """Records how the association ended; the first ending stays."""
        with self._lock:
            peer, known = self.associations[association_id]
            self.associations[association_id] = (peer, known or ending)

    def record(self, instance: StoredInstance) -> None:
        """Records the instance; other content under a known SOP Instance UID becomes the current one."""
        with self._lock:
            current = self._instances.get(instance.sop_instance_uid)
            if current is None or current.digest != instance.digest:
                self._instances[instance.sop_instance_uid] = instance

    def known(self, sop_instance_uid: str, digest: str) -> bool:
        """Whether exactly this content is recorded and current."""
        current = self._instances.get(sop_instance_uid)
        return current is not None and current.digest == digest

    def record_refusal(self, association_id: int | None, name: str, sentence: str, path: str = "") -> None:
        """Records an object that was not taken; `path` of its bytes in the quarantine, if they are there."""
        with self._lock:
            self.refusals.append(Refusal(association_id, name, sentence, path))

    def instances(self) -> tuple[StoredInstance, ...]:
        """The current content of every SOP Instance UID, in the order of arrival."""
        with self._lock:
            return tuple(self._instances.values())
