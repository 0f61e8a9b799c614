"""Commands that talk to peers: `segnode push` to DCMTK, `segnode check --live` to a whole surrounding."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom import dcmread

from tests.peers import Orthanc, Redis, Storescp, free_port, unpack
from worker.cli import main


def pixels(files: Iterable[Path]) -> dict[str, bytes]:
    """Pixel data by SOP Instance UID."""
    return {dataset.SOPInstanceUID: dataset.PixelData for dataset in map(dcmread, files)}


def test_push_sends_a_folder_as_it_is(
    tmp_path: Path, shared_data: Path, program: Callable[[str], str]
) -> None:
    """SCOPE G5: every slice arrives at DCMTK with its pixels; what is no DICOM file is left out by name."""
    program("storescp")
    series = unpack(shared_data / "dicom_ct" / "chest_siemens_sensation10_8mm.tar.xz", tmp_path / "ct")
    (series / "notes.txt").write_text("not DICOM")
    sources = [path for path in series.rglob("*") if path.is_file() and path.suffix != ".txt"]
    with Storescp(tmp_path / "peer") as peer:
        result = CliRunner().invoke(
            main, ["push", str(series), "--to", f"STORESCP@127.0.0.1:{peer.port}", "--json"]
        )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["sent"], report["refused"]) == (30, [])
    assert [Path(path).name for path, _ in report["skipped"]] == ["notes.txt"]
    assert pixels(peer.received.iterdir()) == pixels(sources)


def test_push_to_nobody_is_an_error_by_name(tmp_path: Path, shared_data: Path) -> None:
    """SCOPE G5: a peer that is not there ends with 1, its name and no traceback."""
    series = unpack(shared_data / "dicom_ct" / "chest_siemens_sensation10_8mm.tar.xz", tmp_path / "ct")
    result = CliRunner().invoke(
        main, ["push", str(series), "--to", f"PACS@127.0.0.1:{free_port()}", "--json"]
    )
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["name"] == "DestinationUnreachable"


@pytest.fixture
def surroundings(tmp_path: Path, program: Callable[[str], str]) -> Iterator[Path]:
    """A configuration whose PACS, archive, broker and listener all run."""
    for name in ("Orthanc", "redis-server"):
        program(name)
    port = free_port()
    config = tmp_path / "segnode.toml"
    with Orthanc(tmp_path / "orthanc") as orthanc, Redis(tmp_path / "redis") as redis:
        config.write_text(
            f'[listener]\nport = {port}\nmin_free_gb = 0\n[queue]\nbroker = "{redis.url}"\n'
            f'[[destinations]]\nname = "pacs"\nkind = "c-store"\nhost = "127.0.0.1"\nport = {orthanc.port}\n'
            f'ae_title = "ORTHANC"\n[[destinations]]\nname = "web"\nkind = "stow-rs"\n'
            f'url = "{orthanc.dicomweb}"\n[[destinations]]\nname = "files"\nkind = "folder"\npath = "out"\n'
        )
        listener = subprocess.Popen(
            [sys.executable, "-m", "worker.cli", "--config", str(config), "listen"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert listener.stderr is not None
        deadline = time.monotonic() + 60
        while '"listening"' not in listener.stderr.readline():
            assert listener.poll() is None
            assert time.monotonic() < deadline
        yield config
        listener.terminate()
        assert listener.wait(30) == 0
        listener.stderr.close()


def test_check_live_asks_every_peer(surroundings: Path) -> None:
    """SCOPE I3: C-ECHO to the PACS, DICOMweb of the archive, Redis and the running listener all answer."""
    result = CliRunner().invoke(main, ["--config", str(surroundings), "check", "--live", "--json"])
    document = json.loads(result.stdout)
    live = [(item["level"], item["subject"]) for item in document["findings"]]
    for subject in ("destination pacs", "destination web", "destination files", "broker", "listener"):
        assert live.count(("ok", subject)) >= 2, subject
        assert ("error", subject) not in live
    assert ("ok", "catalogue") in live
