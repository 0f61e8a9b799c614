"""What every test may ask for: the shared data folder, outside programs, free ports."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def _absent(name: str) -> None:
    """Skips by name on a developer's machine, fails where a missing part would hide a fault."""
    sentence = f"{name} is absent: `make test` as root installs programs; data lie in ../shared/data"
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real DICOM and labelled volumes."""
    if not _DATA.is_dir():
        _absent("the folder ../shared/data")
    return _DATA


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Path of an outside program by name."""

    def find(name: str) -> str:
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if found is None:
            _absent(name)
        return str(found)

    return find


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A free TCP port of the loopback interface."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find
