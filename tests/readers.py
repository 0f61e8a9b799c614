"""Readers and validators of result objects that are not ours."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from tests.peers import find_program


@dataclass(frozen=True)
class Segment:
    """What a reader says of one segment: mL, and the centroid in LPS mm where it says so."""

    volume_ml: float
    centroid_lps: tuple[float, float, float] | None = None


def errors_of(path: Path) -> list[str]:
    """What dciodvfy calls an error; a developer's machine without it skips by name, CI fails."""
    program = find_program("dciodvfy")
    if program is None:
        message = "dciodvfy is absent: `make test` as root installs programs"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    found = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    return [line for line in found.stderr.splitlines() if line.startswith("Error")]


def by_dcmqi(seg: Path, folder: Path) -> list[Segment]:
    """Segments as dcmqi, the reader of 3D Slicer, sees them, in order of their numbers."""
    folder.mkdir()
    program = Path(sys.executable).with_name("segimage2itkimage")
    command = [str(program), "--inputDICOM", str(seg), "--outputDirectory", str(folder), "-t", "nrrd"]
    subprocess.run(command, check=True, capture_output=True)
    found: dict[int, Segment] = {}
    for path in sorted(folder.glob("*.nrrd")):
        image = SimpleITK.ReadImage(str(path))
        array = SimpleITK.GetArrayFromImage(image)
        for number in np.unique(array[array > 0]):
            index = np.argwhere(array == number).mean(axis=0)[::-1]
            centre = image.TransformContinuousIndexToPhysicalPoint([float(value) for value in index])
            volume = float((array == number).sum() * np.prod(image.GetSpacing()) / 1000)
            found[int(number)] = Segment(volume, centre)
    return [found[number] for number in sorted(found)]


def by_report(sr: Path) -> list[Segment]:
    """Volumes of the measurement groups of a TID 1500 report, in order."""
    found: list[Segment] = []

    def walk(item: pydicom.Dataset) -> None:
        name = item.get("ConceptNameCodeSequence")
        if name and name[0].CodeValue in {"118565006", "G-D705"} and "MeasuredValueSequence" in item:
            found.append(Segment(float(item.MeasuredValueSequence[0].NumericValue)))
        for child in item.get("ContentSequence", []):
            walk(child)

    walk(pydicom.dcmread(sr))
    return found
