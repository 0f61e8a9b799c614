"""TOML files that people write: read strictly, and every complaint names the file and the key."""

import hashlib
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from models.errors import SegnodeError

_Model = TypeVar("_Model", bound=BaseModel)


def read_toml(path: Path, invalid: type[SegnodeError]) -> tuple[dict[str, Any], str]:
    """What the file says, and the SHA-256 of its bytes; raises `invalid`, naming file and line."""
    try:
        raw = path.read_bytes()
        return tomllib.loads(raw.decode("utf-8")), hashlib.sha256(raw).hexdigest()
    except OSError as error:
        raise invalid(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise invalid(f"{path} is not TOML: {error}.") from error


def checked(model: type[_Model], data: dict[str, Any], path: Path, invalid: type[SegnodeError]) -> _Model:
    """The data as a `model`; raises `invalid` with a sentence for each wrong key of the file at `path`."""
    try:
        return model(**data)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg']}"
            for item in error.errors()
        )
        raise invalid(f"{path}: {wrong}.", path=str(path)) from error
