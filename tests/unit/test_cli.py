"""The command line: what it prints, how it ends, and that it shows no patient."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dicom_node.catalogue.store import Catalogue
from dicom_node.records import (
    AssociationEnding,
    DeliveryReceipt,
    JobEvent,
    Peer,
    ResultObject,
    SliceHeader,
    StoredInstance,
)
from dicom_node.settings import DestinationSettings, Settings, load_settings
from models.registry import LIBRARY, MANIFEST
from worker.cli import main
from worker.cli.checks.configured import ae_titles, broker, destinations, exposure
from worker.cli.checks.findings import Level
from worker.leases import take_slot

PATIENT = "SECRET-PATIENT-ID"
ACCESSION = "SECRETACC"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with one folder destination and a data folder that is not there yet."""
    path = tmp_path / "segnode.toml"
    path.write_text('[[destinations]]\nname = "files"\nkind = "folder"\npath = "out"\n')
    return path


@pytest.fixture
def segnode(config: Path) -> Callable[..., Result]:
    """Runs a command with that configuration."""
    return lambda *arguments: CliRunner().invoke(main, ["--config", str(config), *arguments])


def fill(config: Path, *, written: bool) -> Catalogue:
    """A catalogue with one job, written or failed, and one refusal."""
    catalogue = Catalogue(load_settings(config).catalogue_url)
    association = catalogue.arrivals.open_association(Peer("SCANNER", "SEGNODE", "127.0.0.1"))
    for number in range(3):
        catalogue.arrivals.record(
            StoredInstance(
                sop_instance_uid=f"1.2.3.{number}", sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                series_instance_uid="1.2.3", study_instance_uid="1.2",
                transfer_syntax_uid="1.2.840.10008.1.2.1", digest=f"{number:064d}", size=531_000,
                path=f"a/{number}", received_at=datetime.now(UTC), association_id=association,
                patient_id=PATIENT, accession_number=ACCESSION, header=SliceHeader(modality="CT"),
            )
        )  # fmt: skip
    catalogue.arrivals.close_association(association, AssociationEnding.RELEASED)
    catalogue.arrivals.record_refusal(association, "NotParseable", "The data set cannot be parsed.", "q/1")
    ((job, last),) = catalogue.jobs.receiving()
    catalogue.jobs.complete(job, last, "release and contiguous slices")
    held = catalogue.jobs.claim(job.id, "host/work-0", 15)
    assert held is not None
    catalogue.jobs.record_step(held, "read", datetime.now(UTC), 0.5123)
    if written:
        seg = ResultObject(
            "SEG", "1.2.840.10008.5.1.4.1.1.66.4", "2.25.1", "2.25.2", "1.2", "1.2.840.10008.1.2.1",
            Path("1/ct-lungs/seg.dcm"), 12345, "0" * 64,
        )  # fmt: skip
        catalogue.deliveries.written(held, [("ct-lungs", seg)], ["files"])
        (delivery,) = catalogue.deliveries.claim_due(held.id, "host/work-1", 15)
        receipt = DeliveryReceipt("files", "2.25.1", "written", datetime.now(UTC))
        catalogue.deliveries.delivered(delivery, [receipt])
    else:
        catalogue.jobs.end(held, JobEvent.FAILED, "SliceGap: slice 4 is missing.")
    return catalogue


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    """SCOPE I3: `segnode --help` lists every command without loading one."""
    code = (
        "import sys\nfrom worker.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    start = time.perf_counter()
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    seconds = time.perf_counter() - start
    for command in ("run", "listen", "work", "segment", "demo", "push", "jobs", "models", "init", "check"):
        assert re.search(rf"^  {command} +[A-Z].*\.$", output, re.MULTILINE), command
    for heavy in ("numpy", "pydantic", "pydicom", "sqlalchemy", "celery", "openvino", "torch"):
        assert f"'{heavy}'" not in output
    assert seconds < 2.0  # 0.1 s on an idle machine


def test_every_command_has_help(segnode: Callable[..., Result]) -> None:
    """SCOPE I3: each command loads and explains itself."""
    for command in main.list_commands(None):  # type: ignore[attr-defined]
        result = segnode(command, "--help")
        assert result.exit_code == 0, result.output
        assert len(result.output.splitlines()) > 4


def test_module_runs_as_a_program() -> None:
    """SCOPE I3: `python -m worker.cli` is `segnode`; a wrong command line ends with 2."""
    result = subprocess.run(
        [sys.executable, "-m", "worker.cli", "nonsense"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "Usage: segnode" in result.stderr


def test_errors_have_name_sentence_and_remedy(tmp_path: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE I3: an expected failure is one line and its remedy, or JSON, and exit code 1."""
    plain = segnode("jobs", "list")
    assert plain.exit_code == 1
    assert plain.stderr.startswith("CatalogueUnavailable: There is no catalogue")
    assert "Remedy: `segnode run`" in plain.stderr
    assert plain.stdout == ""
    error = json.loads(segnode("jobs", "list", "--json").stdout)["error"]
    assert error["name"] == "CatalogueUnavailable"
    assert error["remedy"]
    assert not (tmp_path / "segnode-data").exists(), "looking at a catalogue must not make one"


def test_wrong_configuration_names_the_key(config: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE I3: a misspelt setting is named, by every command and by check."""
    config.write_text("[listener]\nprot = 104\n")
    assert "listener.prot" in segnode("jobs", "list").stderr
    result = segnode("check")
    assert result.exit_code == 3
    assert "listener.prot" in result.stdout


def test_output_that_nobody_reads_is_no_failure(config: Path) -> None:
    """SCOPE I3: `segnode jobs list | head` prints no traceback."""
    catalogue = fill(config, written=True)
    catalogue.close()
    command = f"{sys.executable} -m worker.cli --config {config} jobs show 1 --json"
    result = subprocess.run(
        ["bash", "-c", f"{command} | head -c 1"], capture_output=True, text=True, check=False
    )
    assert result.stdout == "{"
    assert "Traceback" not in result.stderr


def test_jobs_show_tells_everything_but_the_patient(config: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE I3, I9: state, evidence, history, steps, results, deliveries, receipts; no patient data."""
    fill(config, written=True).close()
    document = json.loads(segnode("jobs", "show", "1", "--json").stdout)
    assert document["job"]["state"] == "DONE"
    assert document["job"]["evidence"] == "release and contiguous slices"
    assert document["received"]["bytes"] == 3 * 531_000
    assert [entry["event"] for entry in document["history"]] == [
        "received", "completed", "claimed", "written", "delivered",
    ]  # fmt: skip
    assert document["steps"][0]["seconds"] == pytest.approx(0.5123)
    assert document["results"][0]["sop_instance_uid"] == "2.25.1"
    assert document["deliveries"][0]["state"] == "DELIVERED"
    assert document["receipts"][0]["status"] == "written"
    shown = segnode("jobs", "show", "1").stdout
    for expected in ("DONE", "release and contiguous slices", "claimed", "2.25.1", "12.3 kB", "0.512"):
        assert expected in shown
    listed = segnode("jobs", "list").stdout
    for output in (shown, listed, json.dumps(document), segnode("jobs", "refusals").stdout):
        assert PATIENT not in output
        assert ACCESSION not in output


def test_jobs_list_selects_by_state(config: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE I3: jobs by state."""
    fill(config, written=False).close()
    (job,) = json.loads(segnode("jobs", "list", "--state", "failed", "--json").stdout)
    assert job["reason"] == "SliceGap: slice 4 is missing."
    assert json.loads(segnode("jobs", "list", "--state", "DONE", "--json").stdout) == []
    assert segnode("jobs", "list", "--state", "LOST").exit_code == 2


def test_retry_starts_final_jobs_again(config: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE I3: a failed job goes on; what cannot be retried is named, exit code 4."""
    catalogue = fill(config, written=False)
    refused = segnode("jobs", "retry", "1", "--deliver-only", "--json")
    assert refused.exit_code == 4
    assert json.loads(refused.stdout)[0]["error"]["name"] == "TransitionRefused"
    mixed = segnode("jobs", "retry", "1", "77")
    assert mixed.exit_code == 4
    assert "Job 1: READY" in mixed.stdout
    assert "JobUnknown: There is no job 77." in mixed.stdout
    assert [job_id for _, job_id, _ in catalogue.jobs.to_submit()] == [1]
    catalogue.close()


def test_results_are_sent_again_without_segmenting(config: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE G6: a PACS that lost the results gets them again, to the destinations of today."""
    catalogue = fill(config, written=True)
    assert segnode("jobs", "retry", "1", "--deliver-only").stdout == "Job 1: DELIVERING\n"
    (delivery,) = catalogue.deliveries.of_job(1)
    assert (delivery.destination, delivery.state, delivery.attempts) == ("files", "PENDING", 0)
    assert [(job_id, queue) for _, job_id, queue in catalogue.jobs.to_submit()] == [(1, "deliver")]
    config.write_text("")
    catalogue.close()
    fill_again = segnode("jobs", "retry", "1", "--deliver-only")
    assert fill_again.exit_code == 1
    assert "No destination is configured" in fill_again.stderr


def test_refusals_lead_to_the_quarantine(config: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE A2: who sent what could not be taken, why, and where its bytes lie."""
    fill(config, written=True).close()
    (refusal,) = json.loads(segnode("jobs", "refusals", "--json").stdout)
    assert (refusal["name"], refusal["calling_ae"], refusal["path"]) == ("NotParseable", "SCANNER", "q/1")


def test_init_writes_every_setting_with_its_default(tmp_path: Path) -> None:
    """SCOPE I1: the file loads as the defaults; uncommented, every line is valid and still the default."""
    path = tmp_path / "segnode.toml"
    assert CliRunner().invoke(main, ["init", "--output", str(path)]).exit_code == 0
    text = path.read_text()
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    assert load_settings(path) == load_settings(empty)
    uncommented = re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE)
    given = tomllib.loads(uncommented)
    for section, field in Settings.model_fields.items():
        names = getattr(field.annotation, "model_fields", DestinationSettings.model_fields)
        if section == "destinations":
            assert {item["kind"] for item in given[section]} == {"c-store", "stow-rs", "folder"}
            assert all(re.search(rf"^#   {name}: [A-Za-z]", text, re.MULTILINE) for name in names)
        else:
            assert set(given[section]) == set(names)
    path.write_text(uncommented)
    loaded = load_settings(path)
    assert loaded.model_copy(update={"destinations": ()}) == load_settings(empty)


def test_every_setting_has_a_sentence() -> None:
    """SCOPE I1: a sentence for each setting, which the written file shows."""
    sections = [field.annotation for name, field in Settings.model_fields.items() if name != "destinations"]
    for section in [*sections, DestinationSettings]:
        for name, field in section.model_fields.items():  # type: ignore[union-attr]
            assert field.description, f"{section}: {name}"


def test_init_does_not_overwrite(tmp_path: Path) -> None:
    """SCOPE I1: a configuration is overwritten only by --force."""
    path = tmp_path / "segnode.toml"
    path.write_text("mine")
    result = CliRunner().invoke(main, ["init", "--output", str(path)])
    assert result.exit_code == 1
    assert "--force" in result.stderr
    assert path.read_text() == "mine"
    assert CliRunner().invoke(main, ["init", "--output", str(path), "--force"]).exit_code == 0
    assert "[listener]" in path.read_text()


def findings_of(segnode: Callable[..., Result], *arguments: str) -> dict[tuple[str, str], dict[str, str]]:
    """Findings of `segnode check` by (level, subject)."""
    document = json.loads(segnode("check", "--json", *arguments).stdout)
    return {(item["level"], item["subject"]): item for item in document["findings"]}


def test_check_changes_nothing(tmp_path: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE I3: looking leaves no trace."""
    before = sorted(tmp_path.rglob("*"))
    findings_of(segnode)
    assert sorted(tmp_path.rglob("*")) == before


def test_check_tells_a_foreign_port_from_our_own(config: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE I3: a port in use is an error, unless a listener of this data folder holds it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        config.write_text(f"[listener]\nport = {server.getsockname()[1]}\n")
        finding = findings_of(segnode)["error", "listener"]
        assert "cannot be used" in finding["sentence"]
        assert finding["remedy"]
        slot = take_slot(load_settings(config).node.data / "locks", "listen")
        assert ("ok", "listener") in findings_of(segnode)
        slot.lock.close()
    assert "is free" in findings_of(segnode)["ok", "listener"]["sentence"]


def test_check_finds_a_full_disk(config: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE I6: less room than min_free_gb is an error, as every object would be refused."""
    config.write_text("[listener]\nmin_free_gb = 1000000\n")
    assert segnode("check").exit_code == 3
    assert "0xA700" in findings_of(segnode)["error", "disk"]["sentence"]


def test_check_finds_a_catalogue_that_does_not_open(config: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE I3: a file that is no catalogue is named."""
    data = load_settings(config).node.data
    data.mkdir()
    (data / "catalogue.db").write_bytes(b"no database" * 1000)
    assert ("error", "catalogue") in findings_of(segnode)


def test_check_finds_unknown_models(config: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE I7: an enabled model that is not installed is an error."""
    config.write_text('[models]\nenabled = ["no-such-model"]\n')
    assert "no-such-model" in findings_of(segnode)["error", "model no-such-model"]["sentence"]


def test_check_live_names_silent_peers(
    config: Path, segnode: Callable[..., Result], free_port: Callable[[], int]
) -> None:
    """SCOPE I3: --live asks PACS, broker and listener; each that does not answer is named."""
    config.write_text(
        f'[queue]\nbroker = "redis://127.0.0.1:{free_port()}/0"\n[[destinations]]\nname = "pacs"\n'
        f'kind = "c-store"\nhost = "127.0.0.1"\nport = {free_port()}\nae_title = "PACS"\n'
    )
    found = findings_of(segnode, "--live")
    assert ("error", "destination pacs") in found
    assert ("error", "broker") in found
    assert "does not run" in found["warning", "listener"]["sentence"]
    assert not any(
        level == "error" and subject == "destination pacs" for level, subject in findings_of(segnode)
    )


@pytest.mark.parametrize(
    ("toml", "check", "level", "words"),
    [
        ('[node]\nae_title = "BAD\\\\TITLE"', ae_titles, Level.ERROR, "no AE title"),
        ('[listener]\nallowed_calling_ae = ["GOOD", " SPACE"]', ae_titles, Level.ERROR, "' SPACE'"),
        ('[listener]\nhost = "0.0.0.0"', exposure, Level.WARNING, "Every peer"),
        ('[listener]\nhost = "127.0.0.1"', exposure, Level.WARNING, "no other machine"),
        ("", destinations, Level.WARNING, "There is none"),
        ('[queue]\nbroker = "amqp://x"', broker, Level.ERROR, "no supported kind"),
        (
            '[[destinations]]\nname = "me"\nkind = "c-store"\nhost = "::1"\nport = 11112\nae_title = "A"',
            destinations, Level.ERROR, "this node itself",
        ),
        (
            '[[destinations]]\nname = "w"\nkind = "stow-rs"\nurl = "http://h/"\nusername = "u"',
            destinations, Level.ERROR, "belong together",
        ),
        (
            '[[destinations]]\nname = "f"\nkind = "folder"\npath = "segnode.toml/x"',
            destinations, Level.ERROR, "may not be written",
        ),
    ],
)  # fmt: skip
def test_check_names_what_cannot_work(
    config: Path, toml: str, check: Callable[..., object], level: Level, words: str
) -> None:
    """SCOPE I3: configurations that load but cannot work, each found with a remedy."""
    config.write_text(toml + "\n")
    found = [item for item in check(load_settings(config)) if item.level is not Level.OK]  # type: ignore[attr-defined]
    assert [item.level for item in found] == [level]
    assert words in found[0].sentence
    assert found[0].remedy


def test_password_files_are_looked_at(config: Path, tmp_path: Path) -> None:
    """SCOPE A2: a password that others can read, or that travels unencrypted, is a warning each."""
    secret = tmp_path / "password"
    secret.write_text("x")
    secret.chmod(0o644)
    config.write_text(
        '[[destinations]]\nname = "w"\nkind = "stow-rs"\nurl = "http://h/"\nusername = "u"\n'
        'password_file = "password"\n'
    )
    sentences = [item.sentence for item in destinations(load_settings(config))]
    assert sentences == ["Others may read the password file.", "The password travels unencrypted."]
    secret.unlink()
    (finding,) = destinations(load_settings(config))
    assert finding.level is Level.ERROR


@pytest.fixture
def copied(config: Path, tmp_path: Path) -> Path:
    """A copy of the shipped model under another name, in a configured folder."""
    folder = tmp_path / "packages" / "copy"
    shutil.copytree(LIBRARY / "ct-lungs", folder)
    manifest = folder / MANIFEST
    manifest.write_text(manifest.read_text().replace('name = "ct-lungs"', 'name = "copy"', 1))
    config.write_text('[models]\nfolders = ["packages"]\n')
    return folder


def test_models_are_listed_and_shown(copied: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE I7: shipped and own packages, which of them runs, and what each is for."""
    listed = {
        item["name"]: item["enabled"] for item in json.loads(segnode("models", "list", "--json").stdout)
    }
    assert listed == {"copy": "no", "ct-lungs": "yes"}
    shown = segnode("models", "show", "copy").stdout
    for expected in ("Not for clinical use", "39607008, SCT", str(copied)):
        assert expected in shown
    unknown = segnode("models", "show", "nothing")
    assert unknown.exit_code == 1
    assert unknown.stderr.startswith("ModelUnknown: ")


def test_models_verify_runs_the_acceptance_case(copied: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE I7: digests, then the acceptance case on each engine of this machine."""
    result = segnode("models", "verify", "copy", "--json")
    assert result.exit_code == 0, result.output
    checks = {check["what"]: check for check in json.loads(result.stdout)["checks"]}
    for what in ("files", "openvino", "onnxruntime"):
        assert checks[what]["result"] == "ok", checks[what]
    demanded = (manifest := copied / MANIFEST).read_text()
    manifest.write_text(re.sub(r"min_dice = [0-9.]+", "min_dice = 0.9999", demanded))
    refused = segnode("models", "verify", "copy")
    assert refused.exit_code == 4
    assert "AcceptanceFailed" in refused.stdout


def test_models_verify_finds_a_damaged_file(copied: Path, segnode: Callable[..., Result]) -> None:
    """SCOPE I7: one changed byte is found, and nothing of the package is run."""
    network = copied / "model.onnx"
    data = bytearray(network.read_bytes())
    data[len(data) // 2] ^= 1
    network.write_bytes(data)
    result = segnode("models", "verify", "copy", "--json")
    assert result.exit_code == 4
    (check,) = json.loads(result.stdout)["checks"]
    assert check["result"] == "FAILED"
    assert "model.onnx of copy differs" in check["says"]
