"""All checks, in the order in which to mend what they find."""

from collections.abc import Callable, Iterable
from pathlib import Path

from dicom_node.errors import SettingsInvalid
from dicom_node.settings import Settings, load_settings
from worker.cli.checks import configured, surroundings
from worker.cli.checks.findings import Finding, error, ok, warning

Check = Callable[[Settings], Iterable[Finding]]

_ALWAYS: tuple[Check, ...] = (
    configured.ae_titles, surroundings.data_folder, surroundings.listener_port, configured.exposure,
    configured.catalogue, configured.model_packages, surroundings.engines, configured.destinations,
    configured.broker, surroundings.clock, surroundings.open_files,
)  # fmt: skip


def examine(config: Path | None, *, ask_peers: bool) -> list[Finding]:
    """Every finding; an unusable configuration is the only one."""
    try:
        settings = load_settings(config)
    except SettingsInvalid as failure:
        return [error("configuration", failure.sentence, failure.advice)]
    file = config or Path("segnode.toml")
    found = (
        ok("configuration", f"{file} is valid.")
        if file.is_file()
        else warning("configuration", "No segnode.toml here: all defaults.", "`segnode init` writes one.")
    )
    checks = _ALWAYS + (_asking() if ask_peers else ())
    return [found, *(finding for check in checks for finding in check(settings))]


def _asking() -> tuple[Check, ...]:
    """The checks that need the network, and the libraries for it."""
    from worker.cli.checks import live

    return live.destinations, live.broker, live.listener
