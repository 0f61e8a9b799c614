"""Delivery by STOW-RS (PS3.18 section 10.5).

The body is streamed from disk and built afresh for every request. No redirect is followed. An answer counts
only for the SOP Instance UIDs that it names.
"""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from dicom_node.delivery.statuses import DUPLICATE, refusal
from dicom_node.errors import DeliveryFailed, DestinationUnreachable, SettingsInvalid, WritingFailed
from dicom_node.records import DeliveryReceipt, ResultObject
from dicom_node.settings import DestinationSettings

_CHUNK = 1 << 18
_MOST_ANSWER = 16 << 20
_FAILED, _STORED, _INSTANCE = "00081198", "00081199", "00081155"
_FAILURE_REASON, _WARNING_REASON = "00081197", "00081196"
_BUSY = {408, 425, 429}
_JSON = "application/dicom+json"


class StowDeliverer:
    """Stores objects at one DICOMweb origin server, all in one request."""

    def __init__(self, settings: DestinationSettings) -> None:
        self._settings = settings
        self._url = settings.url.rstrip("/") + "/studies"

    def deliver(self, objects: tuple[ResultObject, ...], folder: Path) -> tuple[DeliveryReceipt, ...]:
        """Sends all; a receipt for each. Raises DestinationUnreachable, DestinationRefused."""
        boundary = uuid.uuid4().hex
        try:
            length = sum(len(part) for part in _frame(objects, boundary)) + sum(
                (folder / item.path).stat().st_size for item in objects
            )
        except OSError as error:
            raise WritingFailed(f"A recorded object cannot be read: {error.strerror}.") from error
        status, media_type, body = self._exchange(
            "POST",
            self._url,
            {
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                "Content-Length": str(length),
            },
            _body(objects, folder, boundary),
        )
        self._raise_for(status, body)
        outcomes = _outcomes(media_type, body)
        return tuple(self._receipt(item, status, outcomes) for item in objects)

    def probe(self) -> str:
        """QIDO-RS for one study."""
        status, _, body = self._exchange("GET", f"{self._url}?limit=1", {}, None)
        if status not in {200, 204}:
            self._raise_for(status, body)
            raise refusal(f"{self._settings.name} answered {status} to a query.")
        return f"{self._url} answered {status}."

    def _receipt(
        self, item: ResultObject, status: int, outcomes: dict[str, tuple[bool, int]]
    ) -> DeliveryReceipt:
        stored, reason = outcomes.get(item.sop_instance_uid, (None, 0))
        if stored is None:
            raise DestinationUnreachable(
                f"{self._settings.name} answered {status} without a word on the {item.kind}."
            )
        if not stored and reason != DUPLICATE:
            raise refusal(f"{self._settings.name} refused {item.kind}", reason)
        word = f"{status} stored" if stored else f"{status} duplicate"
        if stored and reason:
            word += f", warning 0x{reason:04X}"
        return DeliveryReceipt(self._settings.name, item.sop_instance_uid, word, datetime.now(UTC))

    def _raise_for(self, status: int, body: bytes) -> None:
        """Names every status but those whose body speaks for each object (200, 202, 409)."""
        name = self._settings.name
        if status in {200, 202} or (status == 409 and body):
            return
        if status >= 500 or status in _BUSY:
            raise DestinationUnreachable(f"{name} answered {status}.", status=status)
        if 300 <= status < 400:
            raise refusal(f"{name} answered {status}, a redirect; none is followed.")
        if status in {401, 403}:
            raise refusal(f"{name} answered {status}: the user name or password is not accepted.")
        raise refusal(f"{name} answered {status}.", permanent=status in {409, 413, 415})

    def _exchange(
        self, method: str, url: str, headers: dict[str, str], content: Iterator[bytes] | None
    ) -> tuple[int, str, bytes]:
        """One request; status, content type and body of the answer."""
        name, timeout = self._settings.name, self._settings.timeout_s
        try:
            with (
                httpx.Client(timeout=timeout, follow_redirects=False, trust_env=False) as client,
                client.stream(
                    method,
                    url,
                    headers={"Accept": _JSON, "Accept-Encoding": "identity"} | headers,
                    content=content,
                    auth=self._credentials(),
                ) as response,
            ):
                body = bytearray()
                for part in response.iter_bytes():
                    body += part
                    if len(body) > _MOST_ANSWER:
                        raise DestinationUnreachable(f"{name} sends an endless answer.")
                return response.status_code, response.headers.get("Content-Type", ""), bytes(body)
        except httpx.HTTPError as error:
            raise DestinationUnreachable(f"{name} cannot be reached: {type(error).__name__}.") from error
        except httpx.InvalidURL as error:
            raise SettingsInvalid(f"The URL of {name} is not one: {error}.") from error
        except OSError as error:
            raise WritingFailed(f"A recorded object cannot be read: {error.strerror}.") from error

    def _credentials(self) -> httpx.BasicAuth | None:
        if not self._settings.username:
            return None
        file = self._settings.password_file
        try:
            password = file.read_text("utf-8").rstrip("\r\n") if file else ""
        except (OSError, UnicodeDecodeError) as error:
            raise DeliveryFailed(
                f"{file} with the password of {self._settings.name} cannot be read."
            ) from error
        return httpx.BasicAuth(self._settings.username, password)


def _frame(objects: tuple[ResultObject, ...], boundary: str) -> list[bytes]:
    """What stands before each object, and after the last (RFC 2046 section 5.1).

    The media type goes without its optional transfer-syntax parameter: Orthanc's plugin drops such parts.
    """
    between = f"\r\n--{boundary}"
    part = f"{between}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return [part] * len(objects) + [f"{between}--\r\n".encode()]


def _body(objects: tuple[ResultObject, ...], folder: Path, boundary: str) -> Iterator[bytes]:
    frame = _frame(objects, boundary)
    for before, item in zip(frame, objects, strict=False):
        yield before
        with (folder / item.path).open("rb") as file:
            while part := file.read(_CHUNK):
                yield part
    yield frame[-1]


def _outcomes(media_type: str, body: bytes) -> dict[str, tuple[bool, int]]:
    """By SOP Instance UID: whether it is stored, and the warning or failure reason (0: none).

    Whatever charset the content type names, JSON is UTF-8 (RFC 8259). An answer in another form names none.
    """
    if media_type.partition(";")[0].strip().lower() not in {_JSON, "application/json"}:
        return {}
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    for wrapped in answer if isinstance(answer, list) else [answer]:
        if isinstance(wrapped, dict):
            stored = {uid: (True, reason) for uid, reason in _items(wrapped, _STORED, _WARNING_REASON)}
            failed = {uid: (False, reason) for uid, reason in _items(wrapped, _FAILED, _FAILURE_REASON)}
            return stored | failed
    return {}


def _items(answer: dict[str, Any], sequence: str, reason: str) -> Iterator[tuple[str, int]]:
    for item in _values(answer, sequence):
        if isinstance(item, dict):
            uids, reasons = _values(item, _INSTANCE), _values(item, reason)
            if uids and isinstance(uids[0], str):
                number = reasons[0] if reasons else 0
                yield uids[0], int(number) if isinstance(number, int | float) else 0


def _values(item: dict[str, Any], tag: str) -> list[Any]:
    """The values of one attribute in the DICOM JSON model (PS3.18 annex F)."""
    element = item.get(tag)
    found = element.get("Value") if isinstance(element, dict) else None
    return found if isinstance(found, list) else []
