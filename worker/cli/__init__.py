"""The command line: thin over the library, and quick, as a command is loaded only when it is named."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from worker.cli.output import EdgeGroup, Global

_COMMANDS = {
    "run": ("node:run", "Run the whole node on this machine."),
    "listen": ("node:listen", "Receive studies by C-STORE and decide when they are whole."),
    "work": ("node:work", "Work on one queue: segment series, or deliver results."),
    "segment": ("segment:segment", "Segment a folder of DICOM files, without any network."),
    "demo": ("demo:demo", "Show the main job on this machine: CT in, SEG and SR out."),
    "push": ("push:push", "Send a folder of DICOM files to a node by C-STORE."),
    "jobs": ("jobs:jobs", "Look at jobs and start them again."),
    "models": ("models:models", "Look at the installed model packages and verify them."),
    "init": ("setup:init", "Write a commented configuration file."),
    "check": ("setup:check", "Say what is wrong with the configuration and its surroundings."),
}
"""Command -> (module of this package:function, one line of help)."""


class _Commands(EdgeGroup):
    """Commands by name; each module is imported when its command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of use."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Loads one command."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"worker.cli.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


def _print_version(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if not value:
        return
    try:
        click.echo(f"segnode {version('segnode')}")
    except PackageNotFoundError:
        click.echo("segnode, not installed: run from its sources")
    context.exit()


@click.command(
    cls=_Commands,
    epilog="Exit codes: 0 done; 1 not carried out (name, sentence and remedy on standard error); 2 wrong "
    "command line; 3 `check` found an error; 4 carried out, but something in it did not succeed.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SEGNODE_CONFIG",
    help="Configuration file. [default: segnode.toml of the current folder, where there is one]",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Print the version.",
)  # fmt: skip
@click.pass_context
def main(context: click.Context, config: Path | None) -> None:
    """A DICOM node that segments: studies in by C-STORE, DICOM SEG and SR back to the PACS.

    Not for clinical use.
    """
    context.obj = Global(config)
