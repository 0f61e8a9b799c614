"""What every command prints, and how it ends: tables for people, JSON for programs, an exit code for both."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.errors import SegnodeError

if TYPE_CHECKING:
    from dicom_node.settings import Settings

_JSON = "segnode.json"


class Exit(IntEnum):
    """How a command ended."""

    DONE = 0
    ERROR = 1
    """The command could not be carried out."""
    USAGE = 2
    """The command line is wrong."""
    FINDINGS = 3
    """`segnode check` found an error."""
    INCOMPLETE = 4
    """Carried out, but something in it did not succeed."""


@dataclass(frozen=True)
class Global:
    """What was said before the command's name."""

    config: Path | None = None

    def settings(self) -> "Settings":
        """The configuration; raises SettingsInvalid."""
        from dicom_node.settings import load_settings

        return load_settings(self.config)


def json_option(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--json`; errors are then JSON too."""

    def remember(context: click.Context, _option: click.Parameter, value: bool) -> bool:
        context.meta[_JSON] = value
        return value

    option = click.option(
        "--json", "as_json", is_flag=True, callback=remember, help="Print JSON, errors included."
    )
    return option(command)


def print_json(document: object) -> None:
    """Prints dataclasses, times, paths and plain values as JSON; times are ISO 8601 with their zone."""
    click.echo(json.dumps(document, indent=2, default=_plain))


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    return str(value)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints rows below their headings, each column as wide as its longest value, numbers to the right."""
    data = [list(row) for row in rows]
    numeric = [
        bool(data) and all(isinstance(row[index], int | float) for row in data)
        for index in range(len(columns))
    ]
    cells = [[name.upper() for name in columns], *([text(value) for value in row] for row in data)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    for row in cells:
        line = "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        click.echo(line.rstrip())


def print_fields(fields: Mapping[str, object]) -> None:
    """Prints names and values, one a line; empty values are left out."""
    shown = {name: text(value) for name, value in fields.items() if value not in (None, "", (), [])}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        click.echo(f"{name.ljust(width)}  {value}")


def print_heading(title: str) -> None:
    """Prints the title of a section."""
    click.echo(f"\n{title}")


def text(value: object) -> str:
    """A value as people read it: times to the second in local time, seconds to the millisecond."""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, tuple | list):
        return ", ".join(text(item) for item in value)
    return "" if value is None else str(value)


def size(count: int) -> str:
    """A number of bytes as people read it (decimal units)."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def error_document(error: SegnodeError) -> dict[str, Any]:
    """An error as programs read it."""
    return {"name": error.name, "sentence": error.sentence, "remedy": error.advice, "facts": error.facts}


class EdgeGroup(click.Group):
    """The outermost edge of the program: a failure becomes one clear line, or JSON, and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except SegnodeError as error:
            if ctx.meta.get(_JSON):
                print_json({"error": error_document(error)})
            else:
                click.echo(f"{error.name}: {error.sentence}", err=True)
                if error.advice:
                    click.echo(f"Remedy: {error.advice}", err=True)
            ctx.exit(Exit.ERROR)
