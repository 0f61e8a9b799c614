"""The node under fault, and the table of kills at the end of a run."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_node.archive import ReceivingArchive


@dataclass(frozen=True)
class Kill:
    """One kill and what became of it; `seconds` from the death to the end of the last job it touched."""

    role: str
    syscall: str
    n: int
    place: str
    seconds: float


KILLS: list[Kill] = []


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[ReceivingArchive]:
    """A PACS that never fails."""
    with ReceivingArchive(tmp_path / "pacs") as running:
        yield running


@pytest.fixture(scope="session")
def can_trace(program: Callable[[str], str]) -> None:
    """strace, and the right to attach it to a process of one's own."""
    program("strace")


@pytest.fixture(scope="session")
def kills() -> list[Kill]:
    """Where tests note their kills."""
    return KILLS


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Soak runs only where they are asked for."""
    if "soak" not in config.getoption("markexpr"):
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="only by `make soak`"))


def soak_kills() -> int:
    """How many kills `make soak` makes."""
    return int(os.environ.get("SEGNODE_SOAK_KILLS", "500"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Every kill, and how long recovery took."""
    if not KILLS:
        return
    write = terminalreporter.write_line
    terminalreporter.section(f"{len(KILLS)} kills")
    write(f"{'role':<10}{'killed at':<24}{'syscall':<12}{'n':>4}  recovered in s")
    for kill in sorted(KILLS, key=lambda k: (k.role, k.place, k.syscall, k.n)):
        write(f"{kill.role:<10}{kill.place:<24}{kill.syscall:<12}{kill.n:>4}  {kill.seconds:8.1f}")
    times = sorted(kill.seconds for kill in KILLS)
    write(f"recovery: median {times[len(times) // 2]:.1f} s, worst {times[-1]:.1f} s")
