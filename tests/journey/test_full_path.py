"""The main job over real peers: DCMTK dcmsend as the scanner, Orthanc as the PACS."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from dicom_node.records import JobState
from tests.node import Node
from tests.peers import Orthanc, Redis, find_program, run, unpack


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A real chest CT: 30 slices of 8 mm."""
    archive = shared_data / "dicom_ct" / "chest_siemens_sensation10_8mm.tar.xz"
    return unpack(archive, tmp_path_factory.mktemp("chest"))


@pytest.fixture
def orthanc(tmp_path: Path, program: Callable[[str], str]) -> Iterator[Orthanc]:
    """An empty PACS."""
    program("Orthanc")
    with Orthanc(tmp_path / "orthanc") as peer:
        yield peer


@pytest.fixture
def broker(request: pytest.FixtureRequest, tmp_path: Path, program: Callable[[str], str]) -> Iterator[str]:
    """The URL of the broker: empty for the default one."""
    if request.param == "filesystem":
        yield ""
        return
    program("redis-server")
    with Redis(tmp_path / "redis") as redis:
        yield redis.url


def destination(kind: str, orthanc: Orthanc) -> dict[str, object]:
    """Orthanc as a destination of that kind."""
    if kind == "c-store":
        return {
            "name": "pacs",
            "kind": kind,
            "host": "127.0.0.1",
            "port": orthanc.port,
            "ae_title": "ORTHANC",
        }
    return {"name": "pacs", "kind": kind, "url": orthanc.dicomweb}


@pytest.mark.parametrize("broker", ["filesystem", "redis"], indirect=True)
@pytest.mark.parametrize("kind", ["c-store", "stow-rs"])
def test_a_scanner_sends_and_the_pacs_has_the_results(
    tmp_path: Path, chest: Path, orthanc: Orthanc, broker: str, kind: str, program: Callable[[str], str]
) -> None:
    """SCOPE A1 A3 B1 B2 F1 G1 G2 G5 I1: CT in by C-STORE, SEG and TID 1500 SR in the PACS, once."""
    program("dcmsend")
    with Node(tmp_path / "node", [destination(kind, orthanc)], {"queue": {"broker": broker}}) as node:
        send = ["-aec", "SEGNODE", "127.0.0.1", str(node.port), "--scan-directories", "--recurse", str(chest)]
        assert run("dcmsend", *send).returncode == 0
        (job,) = node.finished(1)
        assert job.state is JobState.DONE, job.reason
        assert "contiguous" in job.evidence
        first = {item["MainDicomTags"]["SOPInstanceUID"]: item for item in orthanc.instances()}
        assert len(first) == 2

        assert run("dcmsend", *send).returncode == 0  # the same study again changes nothing
        assert len(node.finished(1)) == 1
        assert node.run("jobs", "retry", str(job.id)).returncode == 0  # done again: the same objects
        node.finished(1)
        assert {item["MainDicomTags"]["SOPInstanceUID"] for item in orthanc.instances()} == first.keys()
        shown = node.json("jobs", "show", str(job.id))
    assert "Lung_Dx" not in node.log()  # SCOPE I9: the patient's identifier of this series
    check_objects(tmp_path, chest, orthanc, shown)


def check_objects(tmp_path: Path, chest: Path, orthanc: Orthanc, shown: dict[str, object]) -> None:
    """Holds what the PACS has against the source, with readers that are not ours."""
    objects = {}
    for item in orthanc.instances():
        path = tmp_path / f"{item['ID']}.dcm"
        path.write_bytes(orthanc.file(item["ID"]))
        dataset = pydicom.dcmread(path)
        objects[dataset.Modality] = path
        source = pydicom.dcmread(next(path for path in chest.rglob("*") if path.is_file()))
        for keyword in ("StudyInstanceUID", "PatientID", "AccessionNumber"):
            assert dataset.get(keyword) == source.get(keyword)
        assert errors_of(path) == []
    assert objects.keys() == {"SEG", "SR"}
    recorded = {item["sop_instance_uid"] for item in shown["results"]}  # type: ignore[attr-defined]
    assert recorded == {str(pydicom.dcmread(path).SOPInstanceUID) for path in objects.values()}
    assert independent_volumes(objects["SEG"], tmp_path) == pytest.approx(
        report_volumes(objects["SR"]), rel=1e-3
    )


def errors_of(path: Path) -> list[str]:
    """What dciodvfy calls an error."""
    if find_program("dciodvfy") is None:
        pytest.skip("dciodvfy is absent: `make test` as root installs programs")
    found = subprocess.run(
        [find_program("dciodvfy") or "", str(path)], capture_output=True, text=True, check=False
    )
    return [line for line in found.stderr.splitlines() if line.startswith("Error")]


def independent_volumes(seg: Path, folder: Path) -> list[float]:
    """mL of each segment as dcmqi, the reader of 3D Slicer, sees it."""
    output = folder / "dcmqi"
    output.mkdir()
    program = Path(sys.executable).with_name("segimage2itkimage")
    command = [str(program), "--inputDICOM", str(seg), "--outputDirectory", str(output), "-t", "nrrd"]
    subprocess.run(command, check=True, capture_output=True)
    volumes: dict[int, float] = {}
    for path in sorted(output.glob("*.nrrd")):
        image = SimpleITK.ReadImage(str(path))
        array = SimpleITK.GetArrayFromImage(image)
        for number in np.unique(array[array > 0]):
            volumes[int(number)] = float((array == number).sum() * np.prod(image.GetSpacing()) / 1000)
    return [volumes[number] for number in sorted(volumes)]


def report_volumes(sr: Path) -> list[float]:
    """mL of each measurement group of the report."""
    found = []

    def walk(item: pydicom.Dataset) -> None:
        name = item.get("ConceptNameCodeSequence")
        if name and name[0].CodeValue in {"118565006", "G-D705"} and "MeasuredValueSequence" in item:
            found.append(float(item.MeasuredValueSequence[0].NumericValue))
        for child in item.get("ContentSequence", []):
            walk(child)

    walk(pydicom.dcmread(sr))
    return found
