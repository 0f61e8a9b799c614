"""UIDs that follow from what they name."""

import re

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.uids import result_uid


@given(kind=st.text(), parts=st.lists(st.text(), max_size=4))
def test_a_uid_is_valid_and_depends_on_its_parts_alone(kind: str, parts: list[str]) -> None:
    """SCOPE G7: at most 64 characters, no leading zero (PS3.5 9.1), the same for the same parts."""
    uid = result_uid(kind, *parts)
    assert re.fullmatch(r"2\.25\.(0|[1-9][0-9]*)", uid)
    assert len(uid) <= 64
    assert uid == result_uid(kind, *parts)
    assert uid != result_uid(kind, *parts, "")


def test_parts_are_kept_apart() -> None:
    """SCOPE G7: moving a character from one part to the next is another thing."""
    assert result_uid("SEG", "a", "bc") != result_uid("SEG", "ab", "c") != result_uid("SEGa", "b", "c")


def test_the_scheme_never_changes() -> None:
    """SCOPE G7: a result written by an earlier version keeps its UID."""
    assert result_uid("SEG", "1.2.3", "digest") == "2.25.323349920030996296165611653673369597124"
