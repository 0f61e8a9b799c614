"""The commented configuration file, made from the settings themselves, so that it is never out of date."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dicom_node.settings import DestinationSettings, Settings

_HEAD = """\
Configuration of segnode, a DICOM node that segments. Not for clinical use.

Every setting stands here with its default; remove the # in front of one to change it. Relative paths
count from this file's folder. An environment variable goes before this file: SEGNODE_LISTENER__PORT=104
is `port` of [listener]. `segnode check` says what is wrong with it, `segnode check --live` tries the peers.
"""

_EXAMPLES: tuple[dict[str, object], ...] = (
    {"name": "pacs", "kind": "c-store", "host": "pacs.example.org", "port": 104, "ae_title": "PACS"},
    {"name": "archive", "kind": "stow-rs", "url": "https://archive.example.org/dicom-web",
     "username": "segnode", "password_file": "archive-password"},
    {"name": "files", "kind": "folder", "path": "segnode-results"},
)  # fmt: skip


def configuration_text() -> str:
    """The file's text: TOML that loads as the defaults, also when every `#key = value` is uncommented."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from _comment(_HEAD)
    for section, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield ""
            yield from _comment(kind.__doc__ or "")
            yield f"[{section}]"
            for name, item in kind.model_fields.items():
                yield from _comment(_sentence(item))
                yield f"#{name} = {_toml(item.get_default())}"
    yield from _destinations()


def _destinations() -> Iterator[str]:
    yield ""
    yield from _comment(f"{DestinationSettings.__doc__} One table for each; its settings:")
    for name, item in DestinationSettings.model_fields.items():
        default = None if item.is_required() else item.get_default()
        note = "" if default in (None, "") else f" Default: {_toml(default)}."
        yield from _comment(f"  {name}: {_sentence(item)}{note}")
    for example in _EXAMPLES:
        yield ""
        yield "#[[destinations]]"
        yield from (f"#{name} = {_toml(value)}" for name, value in example.items())


def _comment(words: str) -> Iterator[str]:
    for number, paragraph in enumerate(words.rstrip("\n").split("\n\n")):
        if number:
            yield "#"
        yield from textwrap.wrap(
            paragraph, 100, initial_indent="# ", subsequent_indent="#     " if words[0] == " " else "# "
        )


def _sentence(field: FieldInfo) -> str:
    """What the setting means, and what it may be."""
    words = (field.description or "").replace("\n", " ").strip()
    choices = [str(choice) for choice in _choices(field.annotation)]
    return f"{words} One of: {', '.join(choices)}." if choices else words


def _choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    inner = [_choices(item) for item in get_args(annotation)]
    return next((found for found in inner if found), ())


def _toml(value: object) -> str:
    """A value as TOML; the settings hold text, numbers, truth values and lists of text only."""
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False)
    return json.dumps(value)
