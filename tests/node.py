"""A whole node for tests and benchmarks: `segnode run` as an administrator starts it, on loopback."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicom_node.catalogue.store import Catalogue
from dicom_node.records import Job
from dicom_node.settings import Settings, load_settings

DEFAULTS: dict[str, dict[str, Any]] = {
    "node": {"data": "data"},
    "listener": {"port": 0, "min_free_gb": 0.1},
    "completion": {"grace_s": 0.5, "quiet_s": 4.0},
    "worker": {"lease_s": 5.0},
}


class Node:
    """`with Node(folder, destinations, sections):` runs it and ends it by pid."""

    def __init__(
        self,
        folder: Path,
        destinations: list[dict[str, Any]],
        sections: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = folder / "segnode.toml"
        given = sections or {}
        merged = {name: DEFAULTS.get(name, {}) | dict(given.get(name, {})) for name in {*DEFAULTS, *given}}
        lines = [f"[{name}]\n" + _values(values) for name, values in merged.items()]
        lines += ["[[destinations]]\n" + _values(values) for values in destinations]
        self.config.write_text("\n".join(lines), "utf-8")
        self.settings: Settings = load_settings(self.config)
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        """A segnode command line with this node's configuration."""
        return [sys.executable, "-m", "worker.cli", "--config", str(self.config), *arguments]

    def run(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs a segnode command to its end."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=timeout, check=False
        )

    def json(self, *arguments: str) -> Any:
        """What a segnode command prints with --json."""
        done = self.run(*arguments, "--json")
        return json.loads(done.stdout)

    @property
    def port(self) -> int:
        """The listener's port, once it listens."""
        file = self.settings.node.data / "listener.json"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                return int(json.loads(file.read_text("utf-8"))["port"])
            except (OSError, ValueError, KeyError):
                time.sleep(0.05)
        raise RuntimeError(f"the node does not listen: {self.log()[-2000:]}")

    @property
    def pid(self) -> int:
        """The supervisor, while it runs."""
        assert self._process
        return self._process.pid

    def log(self) -> str:
        """Every log line of every process."""
        file = self.folder / "node.log"
        return file.read_text("utf-8") if file.is_file() else ""

    def catalogue(self) -> Catalogue:
        """The node's catalogue; close it."""
        return Catalogue(self.settings.catalogue_url)

    def finished(self, count: int, timeout: float = 180) -> list[Job]:
        """The jobs, oldest first, once there are `count` and all are final."""
        deadline = time.monotonic() + timeout
        catalogue = self.catalogue()
        try:
            while time.monotonic() < deadline:
                jobs = catalogue.jobs.listed(limit=1000)
                if len(jobs) >= count and all(job.state.final for job in jobs):
                    return jobs[::-1]
                time.sleep(0.1)
            states = [(job.id, str(job.state), job.reason) for job in catalogue.jobs.listed(limit=1000)]
        finally:
            catalogue.close()
        raise RuntimeError(f"jobs did not end: {states}\n{self.log()[-3000:]}")

    def __enter__(self) -> "Node":
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SEGNODE_")}
        with (self.folder / "node.log").open("ab") as log:
            self._process = subprocess.Popen(self.command("run"), stdout=log, stderr=log, env=environment)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(30)


def _values(values: Mapping[str, Any]) -> str:
    """TOML lines; JSON's strings, numbers, lists and booleans are TOML's, too."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
