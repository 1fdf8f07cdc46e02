"""Rich statuses: what a refusal says, and what is left of an upstream's error under an obligation."""

import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, DebugInfo, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from sidecar.enforcement.call import ErrorInfo as Info
from sidecar.enforcement.call import Final
from sidecar.enforcement.metadata import DETAILS
from sidecar.enforcement.rich_status import reduced, render, trailing
from sidecar.errors import Code

pytestmark = pytest.mark.unit


def final(*details, code=Code.NOT_FOUND, message="no Ann", extra=()):
    status = Status(code=int(code), message=message)
    for detail in details:
        if isinstance(detail, Any):
            status.details.append(detail)
        else:
            status.details.add().Pack(detail)
    return Final(code=code, message=message, trailing=((DETAILS, status.SerializeToString()), *extra))


def parsed(result):
    ((key, data),) = result.trailing
    assert key == DETAILS
    return Status.FromString(data)


def test_an_upstreams_trailers_pass_as_they_are():
    one = final(extra=(("x", "y"),))
    assert trailing(one) == one.trailing


def test_a_refusal_replaces_details_and_keeps_the_rest():
    one = Final(
        code=Code.PERMISSION_DENIED, message="refused", trailing=((DETAILS, b"theirs"), ("x", "y")),
        error_info=Info(reason="not_us_personnel", metadata={"call_id": "c"}),
    )  # fmt: skip
    pairs = dict(trailing(one))
    assert pairs["x"] == "y"
    status = Status.FromString(pairs[DETAILS])
    info = ErrorInfo()
    assert (status.code, status.message, len(status.details)) == (7, "refused", 1)
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == ("not_us_personnel", "customhouse", {"call_id": "c"})


def test_retry_and_preconditions_are_rendered_without_error_info_too():
    status = Status.FromString(
        render(Final(code=Code.UNAVAILABLE, retry_after=0.25, preconditions=(("A", "b", "c"), ("D", "e", "f"))))
    )
    retry, failure = RetryInfo(), PreconditionFailure()
    assert status.details[0].Unpack(retry)
    assert status.details[1].Unpack(failure)
    assert retry.retry_delay.ToMilliseconds() == 250
    assert [(one.type, one.subject, one.description) for one in failure.violations] == [
        ("A", "b", "c"),
        ("D", "e", "f"),
    ]


def test_reducing_keeps_code_retry_and_the_constants_of_error_info():
    retry = RetryInfo()
    retry.retry_delay.FromNanoseconds(1_500_000_999)
    info = ErrorInfo(reason="USER_GONE", domain="profiles.corp", metadata={"name": "Ann"})
    result = reduced(final(info, retry, DebugInfo(detail="Ann"), BadRequest(), extra=(("x-name", "Ann"),)))
    assert (result.code, result.message) == (Code.NOT_FOUND, "the service answered NOT_FOUND")
    status = parsed(result)
    kept, delay = ErrorInfo(), RetryInfo()
    assert (status.code, status.message, len(status.details)) == (5, "the service answered NOT_FOUND", 2)
    assert status.details[0].Unpack(kept)
    assert status.details[1].Unpack(delay)
    assert kept == ErrorInfo(reason="USER_GONE", domain="profiles.corp")
    assert delay.retry_delay.ToNanoseconds() == 1_500_000_000
    assert b"Ann" not in result.trailing[0][1]


@pytest.mark.parametrize("reason", ["", "Ann Smith", "ann", "A", "A" * 64, "1A", "A_", "USER\n"])
def test_a_reason_that_is_no_constant_is_gone(reason):
    assert reduced(final(ErrorInfo(reason=reason, domain="d"))).trailing == ()


def test_a_domain_that_is_none_is_blanked():
    status = parsed(reduced(final(ErrorInfo(reason="GONE_NOW", domain="Ann Smith"))))
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info == ErrorInfo(reason="GONE_NOW")


@pytest.mark.parametrize(("seconds", "nanos", "millis"), [
    (-5, 0, 0), (10**11, 0, 86_400_000), (0, 999_999, 0), (2**63 - 1, 0, 86_400_000), (1, -1, 999),
])  # fmt: skip
def test_a_retry_delay_is_bounded_and_coarse(seconds, nanos, millis):
    retry = RetryInfo()
    retry.retry_delay.seconds, retry.retry_delay.nanos = seconds, nanos
    kept = RetryInfo()
    assert parsed(reduced(final(retry))).details[0].Unpack(kept)
    assert kept.retry_delay.ToMilliseconds() == millis


def test_only_the_first_of_each_type_is_kept():
    infos = [ErrorInfo(reason=f"REASON_{n}") for n in range(50)]
    assert len(parsed(reduced(final(*infos))).details) == 1


def test_unknown_fields_and_broken_details_carry_nothing():
    hidden = Any(type_url="type.googleapis.com/google.rpc.ErrorInfo")
    hidden.value = ErrorInfo(reason="FINE_ONE").SerializeToString() + b"\xfa\x07\x03Ann"
    result = reduced(final(hidden))
    assert b"Ann" not in result.trailing[0][1]
    broken = Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
    assert reduced(final(broken)).trailing == ()


def test_ok_carries_nothing():
    assert reduced(Final(code=Code.OK, message="Ann", trailing=(("x", "Ann"),))) == Final(code=Code.OK)


@given(st.binary(), st.sampled_from([code for code in Code if code is not Code.OK]), st.text())
def test_any_bytes_reduce_to_the_same_code_and_nothing_of_theirs(data, code, message):
    result = reduced(Final(code=code, message=message, trailing=((DETAILS, data), ("x", "y"))))
    assert result.code is code
    assert result.message == f"the service answered {code.name}"
    assert {key for key, _ in result.trailing} <= {DETAILS}
