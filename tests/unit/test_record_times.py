"""Times made natively are those that `datetime` writes."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar._native import stamp

pytestmark = pytest.mark.unit


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda one: one.replace(tzinfo=UTC).timestamp()))
def test_a_time_is_written_with_microseconds(seconds: float) -> None:
    assert stamp(seconds) == datetime.fromtimestamp(seconds, UTC).isoformat("T", "microseconds")[:26] + "Z"


@given(st.floats(-1e9, 5e9))
def test_a_time_between_two_microseconds_is_rounded_as_datetime_does(seconds: float) -> None:
    assert stamp(seconds) == datetime.fromtimestamp(seconds, UTC).isoformat("T", "microseconds")[:26] + "Z"


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), float("-inf"), 1e12, -1e12, 253402300799.9999999])
def test_a_time_that_has_no_such_text_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="years 1 to 9999"):
        stamp(seconds)
