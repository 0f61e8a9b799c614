"""Patients whose series go through the faults, and the scanner that sends until it is answered."""

import threading
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from dicom_node.content import content_digest, data_set_digest
from dicom_node.errors import DeliveryFailed
from dicom_node.phantom_series import SeriesFacts, write_ct_series
from dicom_node.requestor import DicomFile, RemoteEntity, StoreAssociation
from dicom_node.uids import result_uid
from models.anatomy import Body
from models.phantom import PhantomSpec, thorax_phantom
from models.volume import Volume

SLICES = 16


@cache
def _volume(kind: int) -> Volume:
    """Two bodies that no one can mistake for each other: the second shows one slice more, and fewer lungs."""
    spec = PhantomSpec(
        shape=(SLICES + kind, 72, 72),
        spacing_mm=(6.0, 5.2, 5.2),
        centre_mm=(0.0, 10.0, 60.0 * kind),
        body=Body(seed=kind + 1),
    )
    return thorax_phantom(spec).volume


@dataclass
class Patient:
    """One series of one patient, and what the node acknowledged of it: digest by SOP Instance UID."""

    name: str
    files: list[DicomFile]
    digests: dict[str, str]
    acknowledged: dict[str, str] = field(default_factory=dict)
    attempts: int = 0

    @property
    def study(self) -> str:
        """Study Instance UID."""
        return result_uid("study", self.name)

    @property
    def series(self) -> str:
        """Series Instance UID."""
        return result_uid("series", self.name)

    @property
    def patient_id(self) -> str:
        """Patient ID."""
        return f"ID-{self.name}"

    @property
    def content(self) -> str:
        """What identifies the content of the series."""
        return content_digest(self.digests.items())

    def send(self, port: int, *, everything: bool = False) -> None:
        """One association with what is not acknowledged yet, or with everything again.

        Raises DeliveryFailed or OSError where the node goes away or refuses.
        """
        self.attempts += 1
        files = [f for f in self.files if everything or f.meta.sop_instance_uid not in self.acknowledged]
        peer = RemoteEntity("127.0.0.1", port, "SEGNODE", "SCANNER", timeout=10)
        with StoreAssociation(peer, {file.context for file in files}) as association:
            for file in files:
                status = association.store(file).status
                if status:
                    raise Refused(file.meta.sop_instance_uid, status)
                uid = file.meta.sop_instance_uid
                self.acknowledged[uid] = self.digests[uid]


class Refused(Exception):
    """The node answered something else than Success: the SOP Instance UID and the status."""


def make_patient(folder: Path, name: str, kind: int = 0) -> Patient:
    """A series of its own under `folder`; `kind` 0 or 1."""
    facts = SeriesFacts(
        seed=name, patient_id=f"ID-{name}", patient_name=f"Fault^{name}", accession_number=name[:16]
    )
    paths = write_ct_series(_volume(kind), folder / name, facts)
    files = [DicomFile.at(path) for path in paths]
    return Patient(name, files, {file.meta.sop_instance_uid: data_set_digest(file.path) for file in files})


def scan(patients: list[Patient], port: int, *, everything: bool = False, within: float = 60.0) -> None:
    """Every patient from a scanner of its own, at the same time; each sends again until all is acknowledged.

    `everything`: a scanner that begins anew with the first slice; otherwise one that goes on where it was.
    """
    deadline = time.monotonic() + within
    failures: list[str] = []

    def run(patient: Patient) -> None:
        while time.monotonic() < deadline:
            try:
                patient.send(port, everything=everything)
            except (DeliveryFailed, OSError):
                time.sleep(0.1)
            else:
                return
        failures.append(patient.name)

    threads = [threading.Thread(target=run, args=(patient,)) for patient in patients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, f"not acknowledged within {within} s: {failures}"
