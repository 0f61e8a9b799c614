"""What the documents say about the tool is true: commands, options, targets, settings, states, files."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dicom_node.records import JobState
from dicom_node.settings import DestinationSettings, Settings
from worker.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md"]
SOURCES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("models", "dicom_node", "worker")
    for path in (ROOT / folder).rglob("*.py")
)
_OPTIONS_OF_THE_GROUP = re.compile(r"(?<=segnode)( --config \S+)(?= )")


def code_of(name: str) -> list[str]:
    """The code of a document: spans in backticks, indented and fenced lines."""
    text = (ROOT / name).read_text("utf-8")
    blocks = re.findall(r"^(?: {4}|\t)(.+)$", text, re.MULTILINE)
    blocks += [
        line for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S) for line in block.split("\n")
    ]
    spans = [
        " ".join(span.split())
        for span in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    ]
    return spans if name.endswith(".py") else blocks + spans


def commands_in(name: str) -> Iterator[list[str]]:
    """The words after `segnode` of every command line in the document."""
    for code in code_of(name):
        line = _OPTIONS_OF_THE_GROUP.sub("", code)
        for match in re.finditer(r"(?:^|/)segnode ([a-z-][^#;|]*)", line):
            yield re.findall(r"-{1,2}[a-z][a-z-]*|[A-Za-z0-9_@:.*-]+", match[1])


def resolve(words: list[str]) -> None:
    """Follows the words through the commands; fails at the first one that does not exist."""
    context = click.Context(main)
    command: click.Command = main
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        assert found is not None, f"`segnode {' '.join(words)}`: there is no {rest[0]}"
        command, rest = found, rest[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}
    for word in rest:
        if word.startswith("-"):
            assert word in known, f"`segnode {' '.join(words)}`: there is no {word}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documented_commands_exist(name: str) -> None:
    """SCOPE I3: every `segnode ...` in the documents is a command, with options that it has."""
    found = list(commands_in(name))
    assert found or name == "CONTRIBUTING.md"
    for words in found:
        resolve(words)


def test_commands_in_messages_exist() -> None:
    """SCOPE I3: so is every command that an error's remedy or a docstring names."""
    found = [words for name in SOURCES for words in commands_in(name)]
    assert len(found) > 10
    for words in found:
        resolve(words)


def test_every_command_is_documented() -> None:
    """SCOPE I3: the README leaves no command out."""
    text = (ROOT / "README.md").read_text("utf-8")
    context = click.Context(main)
    assert isinstance(main, click.Group)
    for name in main.list_commands(context):
        assert f"`segnode {name}" in text, name
        command = main.get_command(context, name)
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                assert f"`segnode {name} {inner}" in text, f"{name} {inner}"


@pytest.mark.parametrize("name", [*DOCUMENTS, ".ci/run"])
def test_documented_targets_exist(name: str) -> None:
    """SCOPE I1: every `make ...` is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {"demo", "test", "bench", "soak", "lock"} <= targets
    codes = code_of(name) if name.endswith(".md") else (ROOT / name).read_text("utf-8").split("\n")
    for code in codes:
        for target in re.findall(r"^make ([a-z-]+)", code):
            assert target in targets, target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documented_settings_exist(name: str) -> None:
    """SCOPE I1: every `section.key`, every SEGNODE_ variable and every TOML block fits the settings."""
    sections = {key: field.annotation for key, field in Settings.model_fields.items()}
    text = (ROOT / name).read_text("utf-8")
    for span in re.findall(r"`([^`\n]+)`", text):
        section, _, key = span.partition(".")
        module = (ROOT / section / key).is_dir() or (ROOT / section / f"{key}.py").is_file()
        if section in sections and re.fullmatch(r"[a-z_]+", key) and not module:
            fields = getattr(sections[section], "model_fields", DestinationSettings.model_fields)
            assert key in fields, span
    for section, key in re.findall(r"SEGNODE_([A-Z]+)__([A-Z_]+)", text):
        assert key.lower() in sections[section.lower()].model_fields, key  # type: ignore[union-attr]
    for block in re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        Settings(**tomllib.loads(block))


def test_documented_states_are_the_states() -> None:
    """SCOPE I3: the README's table names each state and no other."""
    text = (ROOT / "README.md").read_text("utf-8").partition("## States")[2].partition("\n## ")[0]
    assert re.findall(r"^\| ([A-Z]+) \|", text, re.MULTILINE) == [str(state) for state in JobState]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documented_files_exist(name: str) -> None:
    """SCOPE I1: links and module paths lead somewhere."""
    text = (ROOT / name).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / name).parent.joinpath(target).exists(), target
    for path in re.findall(r"`((?:tests|models|dicom_node|worker|deploy)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path


def test_lock_holds_every_dependency() -> None:
    """SCOPE I1: constraints.txt pins what pyproject.toml asks for, once each, and names no index."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins), pins
    names = [re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower() for pin in pins]
    assert len(set(names)) == len(names)
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["train"], *extras["postgres"], *extras["dev"]]
    for requirement in wanted:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)
        assert name is not None
        assert re.sub(r"[-_.]+", "-", name[0]).lower() in names, requirement
