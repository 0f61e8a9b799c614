"""The contract of records.Ledger, kept by the fake and by the catalogue alike."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_node.catalogue.store import Catalogue
from dicom_node.memory import MemoryLedger
from dicom_node.records import AssociationEnding, Ledger, Peer, SliceHeader, StoredInstance

INSTANCE = StoredInstance(
    sop_instance_uid="1.2.3.4.5", sop_class_uid="1.2.840.10008.5.1.4.1.1.2", series_instance_uid="1.2.3.4",
    study_instance_uid="1.2.3", transfer_syntax_uid="1.2.840.10008.1.2.1", digest="a" * 64, size=10,
    path=f"aa/{'a' * 64}.dcm", received_at=datetime.now(UTC), association_id=None, patient_id="P",
    accession_number="", header=SliceHeader(modality="CT", rows=4, columns=4, position=(0.0, 0.0, 1.0)),
)  # fmt: skip
OTHER = replace(INSTANCE, digest="b" * 64, path=f"bb/{'b' * 64}.dcm")


def memory(_: Path) -> Ledger:
    return MemoryLedger()


def catalogue(folder: Path) -> Ledger:
    return Catalogue(f"sqlite:///{folder / 'catalogue.db'}").arrivals


@pytest.fixture(params=[memory, catalogue])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    make: Callable[[Path], Ledger] = request.param
    return make(tmp_path)


def test_recorded_means_known(ledger: Ledger) -> None:
    """SCOPE A3: a duplicate is one that has the same UID and the same bytes."""
    assert not ledger.known("1.2.3.4.5", "a" * 64)
    ledger.record(INSTANCE)
    ledger.record(INSTANCE)
    assert ledger.known("1.2.3.4.5", "a" * 64)
    assert not ledger.known("1.2.3.4.5", "b" * 64)
    assert not ledger.known("1.2.3.4.6", "a" * 64)


def test_other_content_takes_the_place(ledger: Ledger) -> None:
    """SCOPE A3: one UID with other content: the latest is current, and the first may come back."""
    ledger.record(INSTANCE)
    ledger.record(OTHER)
    assert ledger.known("1.2.3.4.5", "b" * 64)
    assert not ledger.known("1.2.3.4.5", "a" * 64)
    ledger.record(INSTANCE)
    assert ledger.known("1.2.3.4.5", "a" * 64)


def test_associations_have_numbers_and_end_once(ledger: Ledger) -> None:
    """SCOPE A3: numbers differ, and closing again is harmless."""
    peer = Peer("SCANNER", "SEGNODE", "127.0.0.1")
    first, second = ledger.open_association(peer), ledger.open_association(peer)
    assert first != second
    ledger.record(replace(INSTANCE, association_id=first))
    ledger.close_association(first, AssociationEnding.RELEASED)
    ledger.close_association(first, AssociationEnding.ABORTED)
    ledger.close_association(second, AssociationEnding.ABORTED)


def test_refusals_are_recorded(ledger: Ledger) -> None:
    """SCOPE A2: with and without an association."""
    number = ledger.open_association(Peer("SCANNER", "SEGNODE", "127.0.0.1"))
    ledger.record_refusal(number, "NotParseable", "It is garbage.", "x.dcm")
    ledger.record_refusal(None, "CallingAENotRecognised", "SCANNER at 127.0.0.1.")
