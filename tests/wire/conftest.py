"""Real peers and our own listener, each on loopback ports of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_node.listener import NodeListener
from dicom_node.memory import MemoryLedger
from dicom_node.settings import ListenerSettings
from dicom_node.spool import Spool
from tests.peers import Orthanc, Redis, Storescp, unpack


class RunningListener:
    """A NodeListener with its spool and ledger."""

    def __init__(self, folder: Path, settings: ListenerSettings) -> None:
        self.spool = Spool(folder / "spool", folder / "quarantine")
        self.ledger = MemoryLedger()
        self.listener = NodeListener(settings, "SEGNODE", self.spool, self.ledger)
        self.listener.start()

    @property
    def port(self) -> int:
        """The TCP port."""
        return self.listener.port

    def leftovers(self) -> list[Path]:
        """Files that nobody will look at again; there must be none."""
        return list((self.spool.folder / "incoming").iterdir())


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Callable[..., RunningListener]]:
    """Starts listeners with given settings; they end with the test."""
    running: list[RunningListener] = []

    def start(**settings: object) -> RunningListener:
        values = {"port": 0, "min_free_gb": 0} | settings
        folder = tmp_path / f"node{len(running)}"
        running.append(RunningListener(folder, ListenerSettings(**values)))  # type: ignore[arg-type]
        return running[-1]

    yield start
    for item in running:
        item.listener.stop()


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> Iterator[Orthanc]:
    """A PACS."""
    program("Orthanc")
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as peer:
        yield peer


@pytest.fixture
def storescp(tmp_path: Path, program: Callable[[str], str]) -> Iterator[Storescp]:
    """DCMTK's storage SCP."""
    program("storescp")
    with Storescp(tmp_path / "storescp") as peer:
        yield peer


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> Iterator[Redis]:
    """A broker."""
    program("redis-server")
    with Redis(tmp_path_factory.mktemp("redis")) as peer:
        yield peer


@pytest.fixture(scope="session")
def chest(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A real chest CT of 30 slices."""
    archive = shared_data / "dicom_ct" / "chest_siemens_sensation10_8mm.tar.xz"
    return unpack(archive, tmp_path_factory.mktemp("chest"))


@pytest.fixture(scope="session")
def syntaxes(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """Four MR slices in each of several transfer syntaxes."""
    archive = shared_data / "odd_dicom" / "mr_4slices_each_transfer_syntax.zip"
    return unpack(archive, tmp_path_factory.mktemp("syntaxes"))
