"""Result files appear whole or not at all."""

import os
from pathlib import Path

from pydicom import dcmwrite
from pydicom.dataset import Dataset


def write_beside(dataset: Dataset, path: Path) -> Path:
    """Writes a Part 10 file (PS3.10 7.1) under a temporary name beside `path`, synced; returns that name."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        dcmwrite(file, dataset, enforce_file_format=True)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def publish(temporary: Path, path: Path) -> None:
    """Gives the file its name; the name survives a power cut."""
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
