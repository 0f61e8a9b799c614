"""What identifies the content of a series, whatever way it came."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from dicom_node.elements import open_encoded


def content_digest(instances: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over (SOP Instance UID, digest of its data set) of every instance, in the order of UIDs."""
    text = "\n".join(sorted(f"{uid} {digest}" for uid, digest in instances))
    return hashlib.sha256(text.encode()).hexdigest()


def data_set_digest(path: Path) -> str:
    """SHA-256 of the data set in a Part 10 file, without preamble and file meta; raises NotParseable."""
    encoded = open_encoded(path)
    return hashlib.sha256(memoryview(encoded.buffer)[encoded.start :]).hexdigest()
