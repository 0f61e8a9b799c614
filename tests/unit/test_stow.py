"""STOW-RS: the body's form and what an answer says."""

import email
import email.policy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.delivery.statuses import refusal
from dicom_node.delivery.stow import _body, _frame, _outcomes
from dicom_node.records import ResultObject


def an_object(uid: str, folder: Path, content: bytes) -> ResultObject:
    (folder / f"{uid}.dcm").write_bytes(content)
    return ResultObject(
        "SEG",
        "1.2.840.10008.5.1.4.1.1.66.4",
        uid,
        "1.2.3.4",
        "1.2.3",
        "1.2.840.10008.1.2.1",
        Path(f"{uid}.dcm"),
        len(content),
        "",
    )


def test_the_body_is_multipart_as_another_parser_reads_it(tmp_path: Path) -> None:
    """SCOPE G5: each object is one part, byte for byte, and the announced length is right."""
    contents = [b"one\r\n--x\r\n", bytes(range(256)), b"\r\n"]
    objects = tuple(an_object(f"1.2.{n}", tmp_path, content) for n, content in enumerate(contents))
    body = b"".join(_body(objects, tmp_path, "BOUNDARY"))
    assert len(body) == sum(map(len, _frame(objects, "BOUNDARY"))) + sum(map(len, contents))
    head = b'Content-Type: multipart/related; type="application/dicom"; boundary=BOUNDARY\r\n\r\n'
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    assert message.is_multipart()
    parts = list(message.iter_parts())  # type: ignore[attr-defined]
    assert [part.get_content_type() for part in parts] == ["application/dicom"] * 3
    assert body.split(b"--BOUNDARY")[1].partition(b"\r\n\r\n")[2] == contents[0] + b"\r\n"


def answer(stored: dict[str, int | None], failed: dict[str, int]) -> dict[str, object]:
    def items(of: dict[str, int | None], tag: str) -> dict[str, object]:
        return {
            "vr": "SQ",
            "Value": [
                {"00081155": {"vr": "UI", "Value": [uid]}}
                | ({tag: {"vr": "US", "Value": [code]}} if code else {})
                for uid, code in of.items()
            ],
        }

    return {"00081199": items(stored, "00081196"), "00081198": items(dict(failed), "00081197")}


@pytest.mark.parametrize(
    "media_type",
    [
        "application/dicom+json",
        "application/dicom+json; charset=utf-8",
        "Application/DICOM+JSON;charset=ISO-8859-1",
        "application/json",
    ],
)
@pytest.mark.parametrize("wrap", [False, True])
def test_every_uid_is_accounted_for(media_type: str, wrap: bool) -> None:
    """SCOPE G5: stored, stored with a warning and failed, whatever the content type's parameters."""
    said = answer({"1.2.1": None, "1.2.2": 0xB000}, {"1.2.3": 0x0122})
    body = json.dumps([said] if wrap else said).encode()
    assert _outcomes(media_type, body) == {
        "1.2.1": (True, 0),
        "1.2.2": (True, 0xB000),
        "1.2.3": (False, 0x0122),
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[1]",
        b"not json",
        b'{"00081199": 1}',
        b'{"00081199": {"Value": [null, 1, {}]}}',
        b'{"00081199": {"Value": [{"00081155": {"Value": [{}]}}]}}',
        b"\xff\xfe\x00",
        b"[[[[",
    ],
)
def test_an_answer_that_names_nothing(body: bytes) -> None:
    """SCOPE G5: an empty or malformed answer is no confirmation."""
    assert _outcomes("application/dicom+json", body) == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["00081199", "00081198", "00081155", "Value", "vr"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(value=json_values)
def test_any_json_is_survived(value: object) -> None:
    """SCOPE G5: a server may answer anything."""
    assert isinstance(_outcomes("application/dicom+json", json.dumps(value).encode()), dict)


def test_an_answer_in_another_form_names_nothing() -> None:
    """SCOPE G5: XML was not asked for."""
    assert _outcomes("application/dicom+xml", json.dumps(answer({"1.2.1": None}, {})).encode()) == {}


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        (0xA700, False),
        (0xA900, True),
        (0xC000, True),
        (0x0110, False),
        (0x0122, True),
        (0x0124, False),
        (0x0117, True),
    ],
)
def test_what_is_worth_another_try(status: int, permanent: bool) -> None:
    """SCOPE G5: out of resources may pass; an unfit object stays unfit."""
    error = refusal("PACS refused SEG", status, "why")
    assert error.permanent is permanent
    assert f"0x{status:04X}" in error.sentence
