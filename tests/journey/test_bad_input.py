"""Bad input, each tried for real on a running node: a named state, a reason, and nothing received lost."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, generate_uid

from dicom_node.archive import ReceivingArchive
from dicom_node.content import data_set_digest
from dicom_node.listener import NodeListener
from dicom_node.memory import MemoryLedger
from dicom_node.requestor import DicomFile, RemoteEntity, StoreAssociation
from dicom_node.settings import ListenerSettings
from dicom_node.spool import Spool
from tests.faults.model import write_thin_model
from tests.faults.node import pacs
from tests.faults.patients import Patient, make_patient
from tests.node import Node
from tests.peers import free_port

QUIET_S = 2.0


@dataclass
class Running:
    """A node, the PACS behind it and a folder for what is sent."""

    node: Node
    archive: ReceivingArchive
    folder: Path

    def patient(self, name: str) -> Patient:
        """A good series."""
        return make_patient(self.folder / "sent", name)

    def send(self, files: list[Path], syntax: str = "") -> list[int]:
        """One association; the status of each file, in order."""
        found = [DicomFile.at(path) for path in files]
        peer = RemoteEntity("127.0.0.1", self.node.port, "SEGNODE", "SCANNER", timeout=20)
        with StoreAssociation(peer, {file.context for file in found}) as association:
            return [association.store(file).status for file in found]

    def job(self, series: str, count: int = 1) -> dict[str, Any]:
        """What the command line shows of the series' newest job, once `count` jobs of it are final."""
        catalogue = self.node.catalogue()
        try:
            wait_until(
                lambda: [j.state.final for j in catalogue.jobs.listed(limit=1000)
                         if j.series_instance_uid == series] == [True] * count,
                self.node,
            )  # fmt: skip
        finally:
            catalogue.close()
        listed = [job for job in self.node.json("jobs", "list") if job["series_instance_uid"] == series]
        shown: dict[str, Any] = self.node.json("jobs", "show", str(listed[0]["id"]))
        assert shown["job"]["reason"] == listed[0]["reason"]
        assert shown["history"][-1]["reason"] == listed[0]["reason"]
        return shown

    def refusal(self, name: str) -> dict[str, Any]:
        """The newest refusal, as the command line shows it."""
        newest: dict[str, Any] = self.node.json("jobs", "refusals")[0]
        assert newest["name"] == name
        assert newest["sentence"]
        return newest

    def kept(self, patient: Patient) -> bool:
        """Whether every data set of the series lies in the spool as it was sent."""
        lying = {path.stem for path in self.node.settings.spool.glob("??/*.dcm")}
        return {data_set_digest(file.path) for file in patient.files} <= lying


def wait_until(true: Callable[[], bool], node: Node, within: float = 60.0) -> None:
    """Returns when it is true."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, node.log()[-3000:]
        time.sleep(0.1)


def start(folder: Path, destinations: list[dict[str, Any]]) -> Node:
    """A node with a quick model and a short quiet period; not running yet."""
    model = write_thin_model(folder / "models")
    sections = {
        "completion": {"grace_s": 0.5, "quiet_s": QUIET_S},
        "models": {"folders": ["models"], "enabled": [model]},
    }
    return Node(folder, destinations, sections)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One node for all."""
    folder = tmp_path_factory.mktemp("bad")
    with (
        ReceivingArchive(folder / "pacs") as archive,
        start(folder / "node", [pacs("pacs", archive.port, "ARCHIVE")]) as node,
    ):
        yield Running(node, archive, folder)


def edit(path: Path, change: Callable[[Dataset], None]) -> None:
    """Changes a file's data set in place."""
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(path)


def paths(patient: Patient) -> list[Path]:
    """The files of the series."""
    return [file.path for file in patient.files]


def test_a_truncated_file(running: Running) -> None:
    """SCOPE A1, A4: refused with 0xC000, kept in quarantine; the series without it has a gap, and says so."""
    patient = running.patient("truncated")
    victim = patient.files[7].path
    victim.write_bytes(victim.read_bytes()[:-3000])
    statuses = running.send(paths(patient))
    assert [n for n, status in enumerate(statuses) if status] == [7]
    assert statuses[7] == 0xC000
    path = running.node.settings.quarantine / running.refusal("NotParseable")["path"]
    assert data_set_digest(path) == data_set_digest(victim)
    job = running.job(patient.series)
    assert job["job"]["state"] == "FAILED"
    assert job["job"]["reason"].startswith("SliceGap")


def test_no_dicom_at_all(running: Running) -> None:
    """SCOPE A1: bytes of something else inside a C-STORE."""
    patient = running.patient("noise")
    file = patient.files[0]
    file.path.write_bytes(file.path.read_bytes()[: file.offset] + b"\xff\xd8 a holiday picture " * 999)
    assert running.send([file.path]) == [0xC000]
    path = running.node.settings.quarantine / running.refusal("NotParseable")["path"]
    assert data_set_digest(path) == data_set_digest(file.path)


@pytest.mark.parametrize(
    ("name", "change", "state", "reason"),
    [
        ("unplaced", lambda d: d.__delattr__("ImagePositionPatient"), "FAILED", "GeometryMissing"),
        ("unturned", lambda d: d.__delattr__("ImageOrientationPatient"), "FAILED", "GeometryMissing"),
        ("unscaled", lambda d: d.__delattr__("PixelSpacing"), "FAILED", "GeometryMissing"),
        ("magnetic", lambda d: setattr(d, "Modality", "MR"), "SKIPPED", "no model accepts"),
    ],
)
def test_headers_that_do_not_do(
    running: Running, name: str, change: Callable[[Dataset], None], state: str, reason: str
) -> None:
    """SCOPE B1, I1: every slice lacks what places it, or is of a modality that no model takes."""
    patient = running.patient(name)
    for path in paths(patient):
        edit(path, change)
    assert not any(running.send(paths(patient)))
    job = running.job(patient.series)["job"]
    assert (job["state"], job["reason"][: len(reason)]) == (state, reason)
    assert running.kept(patient)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("rescaled", lambda d, _: setattr(d, "PixelSpacing", [1.0, 1.0]), "GeometryContradictory"),
        (
            "turned",
            lambda d, _: setattr(d, "ImageOrientationPatient", [0, 1, 0, 1, 0, 0]),
            "MixedOrientation",
        ),
        ("lost", lambda d, _: setattr(d, "ImagePositionPatient", None), "GeometryMissing"),
        (
            "doubled",
            lambda d, other: setattr(d, "ImagePositionPatient", other.ImagePositionPatient),
            "DuplicatePosition",
        ),
        ("reframed", lambda d, _: setattr(d, "FrameOfReferenceUID", generate_uid()), "GeometryContradictory"),
        ("other", lambda d, _: setattr(d, "PatientID", "SOMEBODY-ELSE"), "MixedPatients"),
    ],
)
def test_one_slice_contradicts_the_others(
    running: Running, name: str, change: Callable[[Dataset, Dataset], None], reason: str
) -> None:
    """SCOPE B1, I1: contradictory geometry, or another patient's slice in the series."""
    patient = running.patient(name)
    other = dcmread(patient.files[9].path)
    edit(patient.files[5].path, lambda dataset: change(dataset, other))
    assert not any(running.send(paths(patient)))
    job = running.job(patient.series)["job"]
    assert (job["state"], job["reason"].partition(":")[0]) == ("FAILED", reason)
    assert running.kept(patient)


def test_a_localiser_in_the_series(running: Running) -> None:
    """SCOPE B1: left out; the rest is segmented."""
    patient = running.patient("localiser")

    def localise(dataset: Dataset) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        dataset.ImagePositionPatient = [-180, 0, 300]
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()

    extra = running.folder / "sent" / "localiser.dcm"
    extra.write_bytes(patient.files[0].path.read_bytes())
    edit(extra, localise)
    assert not any(running.send([extra, *paths(patient)]))
    job = running.job(patient.series)
    assert job["job"]["state"] == "DONE"
    assert job["job"]["instances"] == len(patient.files) + 1
    assert [item["kind"] for item in job["results"]] == ["SEG", "SR"]


def test_two_series_interleaved(running: Running) -> None:
    """SCOPE A3: slices of two series in turn, in one association."""
    one, two = running.patient("first"), running.patient("second")
    both = [path for pair in zip(paths(one), paths(two), strict=True) for path in pair]
    assert not any(running.send(both))
    for patient in (one, two):
        job = running.job(patient.series)
        assert job["job"]["state"] == "DONE"
        assert job["job"]["instances"] == len(patient.files)
        assert {item["study_instance_uid"] for item in job["results"]} == {patient.study}


def test_the_same_study_twice(running: Running) -> None:
    """SCOPE A3: the second time changes nothing: no job, no object."""
    patient = running.patient("again")
    assert not any(running.send(paths(patient)))
    first = running.job(patient.series)
    before = len(running.archive.instances())
    assert not any(running.send(paths(patient)))
    time.sleep(QUIET_S + 1)
    assert running.job(patient.series) == first
    assert len(running.archive.instances()) == before


def test_one_uid_with_other_content(running: Running) -> None:
    """SCOPE A3: the newer content counts, as a new revision with objects of its own; the older stays kept."""
    patient = running.patient("changed")
    assert not any(running.send(paths(patient)))
    first = running.job(patient.series)
    old = data_set_digest(patient.files[4].path)
    edit(patient.files[4].path, lambda d: setattr(d, "PixelData", bytes(len(d.PixelData))))
    assert running.send([patient.files[4].path]) == [0]
    second = running.job(patient.series, count=2)
    assert (second["job"]["state"], second["job"]["revision"]) == ("DONE", 2)
    assert "replaced" in [line["event"] for line in second["history"]]
    uids = [{item["sop_instance_uid"] for item in job["results"]} for job in (first, second)]
    assert not uids[0] & uids[1]
    assert running.kept(patient)
    assert (running.node.settings.spool / old[:2] / f"{old}.dcm").is_file()


def test_a_compression_that_nobody_decodes_here(running: Running) -> None:
    """SCOPE B2: MPEG-2 is stored as it comes, and named when the pixels are wanted."""
    patient = running.patient("film")

    def film(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = MPEG2MPML
        dataset.PixelData = encapsulate([b"\x00\x00\x01\xb3" + bytes(100)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True

    for path in paths(patient):
        edit(path, film)
    assert not any(running.send(paths(patient)))
    job = running.job(patient.series)["job"]
    assert (job["state"], job["reason"].partition(":")[0]) == ("FAILED", "PixelsUndecodable")
    assert running.kept(patient)


def test_a_private_transfer_syntax(running: Running) -> None:
    """SCOPE A1: not accepted in the negotiation, so the sender knows before it sends."""
    file = running.patient("private").files[0]
    edit(file.path, lambda d: setattr(d.file_meta, "TransferSyntaxUID", "1.2.840.113619.5.2"))
    odd = DicomFile.at(file.path)
    peer = RemoteEntity("127.0.0.1", running.node.port, "SEGNODE", "SCANNER", timeout=20)
    with StoreAssociation(peer, {odd.context, file.context}) as association:
        assert not association.takes(odd)
        assert association.takes(file)


@pytest.fixture
def bad_pacs(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Storage SCPs that refuse: by their settings, on ports of their own."""
    listeners: list[NodeListener] = []

    def make(**settings: Any) -> int:
        folder = tmp_path / f"bad{len(listeners)}"
        spool = Spool(folder / "objects", folder / "refused")
        values = {"port": 0, "min_free_gb": 0} | settings
        listener = NodeListener(ListenerSettings(**values), "PACS", spool, MemoryLedger())
        listener.start()
        listeners.append(listener)
        return listener.port

    yield make
    for listener in listeners:
        listener.stop()


def test_a_pacs_that_does_not_take_it(tmp_path: Path, bad_pacs: Callable[..., int]) -> None:
    """SCOPE E1: unknown AE titles, out of resources, absent: retried, given up at last, each reason named."""
    destinations = [
        pacs("stranger", bad_pacs(allowed_calling_ae=("NOBODY",)), "PACS"),
        pacs("misnamed", bad_pacs(require_called_ae=True), "WRONG"),
        pacs("full", bad_pacs(min_free_gb=1e9), "PACS"),
        pacs("absent", free_port(), "PACS"),
    ]
    for destination in destinations:
        destination["give_up_days"] = 3 / 86400
    with start(tmp_path / "node", destinations) as node:
        running = Running(node, ReceivingArchive(tmp_path / "none"), tmp_path)
        patient = running.patient("refused")
        assert not any(running.send(paths(patient)))
        shown = running.job(patient.series)
        assert shown["job"]["state"] == "FAILED"
        errors = {row["destination"]: row["last_error"] for row in shown["deliveries"]}
        assert {row["state"] for row in shown["deliveries"]} == {"GIVEN_UP"}
        assert all(row["attempts"] > 1 for row in shown["deliveries"])
        for name, words in {
            "stranger": "DestinationRefused", "misnamed": "DestinationRefused",
            "full": "0xA700", "absent": "DestinationUnreachable",
        }.items():  # fmt: skip
            assert words in errors[name]
            assert name in shown["job"]["reason"]
        assert running.kept(patient)
        assert len(shown["results"]) == 2


def delivering(node: Node) -> list[dict[str, Any]]:
    """Jobs on their way to a PACS, as the command line lists them."""
    found: list[dict[str, Any]] = node.json("jobs", "list", "--state", "DELIVERING")
    return found


def test_a_pacs_that_comes_back(tmp_path: Path) -> None:
    """SCOPE E1: absent at first: the job waits as DELIVERING with the reason, and is done when it answers."""
    archive = ReceivingArchive(tmp_path / "pacs", port=free_port())
    archive.start()
    port = archive.port
    archive.stop()
    with start(tmp_path / "node", [pacs("pacs", port, "ARCHIVE")]) as node:
        running = Running(node, archive, tmp_path)
        patient = running.patient("patience")
        assert not any(running.send(paths(patient)))
        wait_until(
            lambda: any(j["state"] == "DELIVERING" and j["reason"] for j in node.json("jobs", "list")), node
        )
        (job,) = node.json("jobs", "list")
        assert "DestinationUnreachable" in job["reason"]
        with archive:
            shown = running.job(patient.series)
        assert shown["job"]["state"] == "DONE"
        assert len(archive.instances()) == 2
