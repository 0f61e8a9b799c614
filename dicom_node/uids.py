"""UIDs that follow from what they name: the same work gives the same objects."""

import hashlib

_ROOT = "2.25."
"""Root of UIDs made from a UUID-like 128-bit number (PS3.5 B.2)."""


def result_uid(kind: str, *parts: str) -> str:
    """A UID that depends on `kind` and `parts` alone: 2.25.<128 bits of their SHA-256>.

    Parts are separated, so ("a", "bc") and ("ab", "c") differ.
    """
    digest = hashlib.sha256("".join(f"{len(part)}:{part}" for part in (kind, *parts)).encode()).digest()
    return _ROOT + str(int.from_bytes(digest[:16], "big"))
