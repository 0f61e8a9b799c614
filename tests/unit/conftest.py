"""Parts that several unit tests need."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_node.catalogue.store import Catalogue
from dicom_node.records import AssociationEnding, Job, Peer, SliceHeader, StoredInstance

PEER = Peer("CT1", "SEGNODE", "127.0.0.1")


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    """A catalogue in a fresh SQLite file."""
    made = Catalogue(f"sqlite:///{tmp_path / 'catalogue.db'}")
    yield made
    made.close()


@pytest.fixture
def instance() -> Callable[..., StoredInstance]:
    """Makes the record of one CT slice: number, series, content."""

    def make(
        number: int, series: str = "1.2.3", content: str = "a", association: int | None = None
    ) -> StoredInstance:
        digest = f"{content}{number:03d}".ljust(64, "0")
        header = SliceHeader(
            "CT", 8, 8, 1, number, (0.0, 0.0, 2.5 * number), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1.0, 1.0), 2.5,
            ("ORIGINAL", "PRIMARY", "AXIAL"),
        )  # fmt: skip
        return StoredInstance(
            f"{series}.{number}", "1.2.840.10008.5.1.4.1.1.2", series, "1.2", "1.2.840.10008.1.2.1", digest,
            1000, f"{digest[:2]}/{digest}.dcm", datetime.now(UTC), association, "P1", "A1", header,
        )  # fmt: skip

    return make


@pytest.fixture
def send(catalogue: Catalogue, instance: Callable[..., StoredInstance]) -> Callable[..., None]:
    """Records slices as one association would bring them."""

    def run(
        numbers: list[int], series: str = "1.2.3", content: str = "a",
        ending: AssociationEnding | None = AssociationEnding.RELEASED,
    ) -> None:  # fmt: skip
        association = catalogue.arrivals.open_association(PEER)
        for number in numbers:
            catalogue.arrivals.record(instance(number, series, content, association))
        if ending:
            catalogue.arrivals.close_association(association, ending)

    return run


@pytest.fixture
def ready_job(catalogue: Catalogue, send: Callable[..., None]) -> Callable[..., Job]:
    """Sends a series and completes it."""

    def make(series: str = "1.2.3", content: str = "a", count: int = 4) -> Job:
        send(list(range(count)), series, content)
        job, last = next(item for item in catalogue.jobs.receiving() if item[0].series_instance_uid == series)
        completed = catalogue.jobs.complete(job, last, "test")
        assert completed is not None
        return completed

    return make
