"""A whole folder by C-STORE: `segnode push`, and the scanner's part in the demo."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import SettingsInvalid
from dicom_node.requestor import MOST_CONTEXTS, DicomFile, RemoteEntity, StoreAssociation, files_in

_ADDRESS = re.compile(r"(?P<ae>[^@\\]{1,16})@(?P<host>\[[0-9A-Fa-f:]+\]|[^@:\s]+):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class PushReport:
    """What became of the files; `refused` and `skipped` with the reason. `size` in bytes."""

    sent: int
    size: int
    seconds: float
    warnings: tuple[tuple[Path, str], ...]
    refused: tuple[tuple[Path, str], ...]
    skipped: tuple[tuple[Path, str], ...]


def parse_address(text: str) -> tuple[str, str, int]:
    """AE title, host and port of `AET@HOST:PORT`; raises SettingsInvalid."""
    match = _ADDRESS.fullmatch(text.strip())
    if not match or not 0 < int(match["port"]) < 65536:
        raise SettingsInvalid(
            f"'{text}' is not an address.", remedy="Write AET@HOST:PORT, as in PACS@10.0.0.5:104."
        )
    return match["ae"].strip(), match["host"].strip("[]"), int(match["port"])


def push_folder(
    folder: Path,
    to: str,
    calling_ae: str = "SEGNODE",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PushReport:
    """Sends every DICOM file below the folder as it is, in the order of the names.

    One association, or several where the files need more contexts than one association holds. `progress`
    hears how many of how many are answered. Raises SettingsInvalid, DestinationUnreachable,
    DestinationRefused (for the association; refused objects are in the report).
    """
    title, host, port = parse_address(to)
    peer = RemoteEntity(host, port, title, calling_ae)
    files, skipped = files_in(folder)
    begun = time.perf_counter()
    sent = size = done = 0
    warnings, refused = [], []
    for batch in _batches(files):
        with StoreAssociation(peer, [file.context for file in batch]) as association:
            for file in batch:
                if not association.takes(file):
                    refused.append((file.path, "The peer does not accept its SOP Class and transfer syntax."))
                else:
                    answer = association.store(file)
                    said = f"0x{answer.status:04X} {answer.comment}".strip()
                    if answer.status == 0 or answer.status >> 12 == 0xB:
                        sent, size = sent + 1, size + file.path.stat().st_size - file.offset
                        if answer.status:
                            warnings.append((file.path, said))
                    else:
                        refused.append((file.path, said))
                done += 1
                progress(done, len(files))
    seconds = time.perf_counter() - begun
    return PushReport(sent, size, seconds, tuple(warnings), tuple(refused), tuple(skipped))


def _batches(files: list[DicomFile]) -> Iterator[list[DicomFile]]:
    """Runs of files whose contexts, and Verification, fit into one association."""
    batch: list[DicomFile] = []
    contexts: set[tuple[str, str]] = set()
    for file in files:
        if len(contexts | {file.context}) >= MOST_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(file)
        contexts.add(file.context)
    if batch:
        yield batch
