"""The main job over real peers: DCMTK dcmsend as the scanner, Orthanc as the PACS."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest

from dicom_node.records import JobState
from tests.node import Node
from tests.peers import Orthanc, Redis, run, unpack
from tests.readers import by_dcmqi, by_report, errors_of


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
    seen = [item.volume_ml for item in by_dcmqi(objects["SEG"], tmp_path / "dcmqi")]
    assert seen == pytest.approx([item.volume_ml for item in by_report(objects["SR"])], rel=1e-3)
