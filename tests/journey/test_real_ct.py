"""ct-lungs on every real CT at hand, through a whole node, held against readers that are not ours."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dicom_node.delivery.push import push_folder
from dicom_node.phantom_series import SeriesFacts, write_ct_series
from models.nifti import load_volume
from tests.node import Node
from tests.peers import unpack
from tests.readers import by_dcmqi, by_report, errors_of


@dataclass(frozen=True)
class Case:
    """A real CT and the volumes, in mL, that its lungs may have: (left, right), None where there is none."""

    archive: str
    left: tuple[float, float] | None
    right: tuple[float, float] | None
    part: str = ""


CASES = {
    # a lung cancer patient, whole chest
    "chest": Case("dicom_ct/chest_siemens_sensation10_8mm.tar.xz", (1000, 3500), (1000, 4000)),
    # upper abdomen: at most a sliver of the lungs' bases
    "abdomen": Case("dicom_ct/abdomen_siemens_mct_j2k_20slices.zip", (0, 150), (0, 150)),
    # a crop around the aorta: parts of both lungs
    "thorax": Case("nifti/thorax_ct_1p5mm/image.nii.gz", (50, 2500), (50, 2500)),
    "head": Case("dicom_ct/headphantom_philips_study1_scout_axial_sc.tar.xz", None, None, "S2010"),
    "limb": Case("dicom_ct_mr_pet_rtstruct/sarcoma_sts_012.tar.xz", None, None, "CT/image"),
}


def series(case: Case, data: Path, folder: Path) -> Path:
    """The case as a folder of DICOM files."""
    archive = data / case.archive
    if archive.name.endswith(".nii.gz"):
        write_ct_series(load_volume(archive), folder, SeriesFacts(seed="thorax", patient_id="T1"))
        return folder
    whole = unpack(archive, folder)
    if not case.part:
        return whole
    folders = (path for path in sorted(whole.rglob("*")) if path.is_dir())
    return next(path for path in folders if path.as_posix().endswith(case.part))


@pytest.fixture(scope="module")
def results(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Every case sent to one node; by case what `jobs show` says and the folder with what was delivered."""
    folder = tmp_path_factory.mktemp("real")
    destination = {"name": "files", "kind": "folder", "path": str(folder / "delivered")}
    shown: dict[str, Any] = {}
    with Node(folder / "node", [destination]) as node:
        for number, (name, case) in enumerate(CASES.items(), start=1):
            push_folder(series(case, shared_data, folder / name), f"SEGNODE@127.0.0.1:{node.port}")
            job = node.finished(number)[-1]
            shown[name] = node.json("jobs", "show", str(job.id))
    files = list((folder / "delivered").rglob("*.dcm"))
    yield {"shown": shown, "files": files}
    shutil.rmtree(folder, ignore_errors=True)


def objects(results: dict[str, Any], name: str) -> dict[str, Path]:
    """SEG and SR of a case as delivered."""
    found = {}
    for item in results["shown"][name]["results"]:
        uid = item["sop_instance_uid"]
        found[item["kind"]] = next(path for path in results["files"] if uid in path.name)
    return found


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.left])
def test_lungs_are_found_where_they_are(results: dict[str, Any], name: str, tmp_path: Path) -> None:
    """SCOPE A1 B1 B2 F1 F9 G1 G2: plausible lungs, valid objects, the same volumes in a second reader."""
    shown = results["shown"][name]
    assert shown["job"]["state"] == "DONE", shown["job"]["reason"]
    made = objects(results, name)
    for path in made.values():
        assert errors_of(path) == []
    segments = {s["name"]: s for item in shown["results"] for s in item["facts"].get("segments", [])}
    for label, limits in (("Left lung", CASES[name].left), ("Right lung", CASES[name].right)):
        volume = segments[label]["volume_ml"] if label in segments else 0.0
        assert limits
        assert limits[0] <= volume <= limits[1], f"{label}: {volume:.0f} mL"
    if not segments:
        return
    ours = [segments[label] for label in sorted(segments, key=lambda label: segments[label]["segment"])]
    seen = by_dcmqi(made["SEG"], tmp_path / "dcmqi")
    reported = by_report(made["SR"])
    for mine, theirs, said in zip(ours, seen, reported, strict=True):
        assert theirs.volume_ml == pytest.approx(mine["volume_ml"], rel=1e-3)
        assert said.volume_ml == pytest.approx(mine["volume_ml"], rel=1e-3)
        assert theirs.centroid_lps == pytest.approx(mine["centroid_lps"], abs=0.05)
    if len(segments) == 2:  # the patient's left is at larger x (PS3.3 C.7.6.2.1.1)
        assert segments["Left lung"]["centroid_lps"][0] > segments["Right lung"]["centroid_lps"][0]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.left])
def test_where_there_is_no_lung_none_is_found_and_it_says_so(results: dict[str, Any], name: str) -> None:
    """SCOPE G2: nothing found is still a report; a head and a limb have no lungs."""
    shown = results["shown"][name]
    assert shown["job"]["state"] == "DONE", shown["job"]["reason"]
    assert "none of the model's structures found" in shown["job"]["reason"]
    assert [item["kind"] for item in shown["results"]] == ["SR"]
    assert errors_of(objects(results, name)["SR"]) == []
