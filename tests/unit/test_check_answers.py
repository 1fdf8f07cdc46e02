"""Answers of the decision API as they leave: the messages that protobuf would write, and nothing of an earlier answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.doors.check_answers import Answered, Permits, Shown, batch, refused, streamed
from sidecar.enforcement.call import ErrorInfo, Final
from sidecar.enforcement.permits import Permit
from sidecar.errors import Code, EnforceError

pytestmark = pytest.mark.unit
NAMES = st.text(min_size=1, max_size=128)
REDACT = ({"id": "redact_fields", "categories": ["id_contact"], "fields": ["a.B.c"]},)
DROP = ({"id": "drop_records", "subjects": "us"}, {"id": "require_durability", "level": "committed"})


def message(size):
    """A response of about this many bytes."""
    return pb.CheckResponse(decision=pb.DECISION_PERMIT, message="x" * size)


@given(st.lists(st.tuples(NAMES, st.integers(0, 20_000)), max_size=5))
def test_a_batch_and_a_stream_are_encoded_as_protobuf_does(said):
    found = [(name, Answered("", message(size).SerializeToString())) for name, size in said]
    results = [pb.BatchResult(id=name, response=message(size)) for name, size in said]
    assert batch(found) == pb.BatchCheckResponse(results=results).SerializeToString()
    for (name, answered), result in zip(found, results, strict=True):
        wanted = pb.CheckStreamResponse(id=name, check=result.response)
        assert streamed(name, answered) == wanted.SerializeToString()


@pytest.mark.parametrize("size", [0, 0x7F, 0x80, 0x3FFF, 0x4000, 0x1F_FFFF, 0x20_0000])
def test_lengths_of_every_width_are_read_back(size):
    found = batch([("a", Answered("", message(size).SerializeToString()))])
    assert len(pb.BatchCheckResponse.FromString(found).results[0].response.message) == size


def permit(call_id, obligations=(), expires_at=2e9, **more):
    return Permit(call_id=call_id, forward=None, obligations=obligations, metadata=(), expires_at=expires_at, **more)


PERMITS = st.lists(
    st.tuples(
        st.sampled_from([(), REDACT, DROP]),
        st.booleans(),
        st.booleans(),
        st.floats(0, 3e9),
        st.floats(1, 3e9),
        st.sampled_from([Shown(), Shown(forward=b"f"), Shown(release=b""), Shown(withheld=True)]),
    ),
    min_size=1,
    max_size=8,
)


@given(PERMITS)
def test_an_answer_holds_its_own_call_and_nothing_of_an_earlier_one(several):
    permits = Permits()
    for number, (obligations, of_method, checked, expires_at, report_by, shown) in enumerate(several):
        given_ = permit(f"call-{number}", obligations, expires_at, dropped={"us": (f"u{number}",)})
        how = {"of_method": of_method, "checked": checked, "report_by": report_by, "shown": shown}
        found, anew = permits.rendered(given_, **how), Permits().rendered(given_, **how)
        answer = pb.CheckResponse.FromString(found.data)
        assert (found.call_id, answer.call_id) == (given_.call_id, given_.call_id)
        assert answer == pb.CheckResponse.FromString(anew.data)
        assert answer.report_by.ToNanoseconds() == pytest.approx(report_by * 1e9, abs=1e3)
        assert answer.expires_at.ToNanoseconds() == pytest.approx(min(expires_at, report_by) * 1e9, abs=1e3)
        handed_on = () if of_method and checked else obligations
        assert len(answer.obligations) == sum(one["id"] != "require_durability" for one in handed_on)
        ids = [list(one.drop_records.ids) for one in answer.obligations if one.HasField("drop_records")]
        assert ids == [[f"u{number}"]] * len(ids)
        assert (answer.HasField("forward"), answer.HasField("release"), answer.withheld) == (
            (shown.forward is not None, shown.release is not None, shown.withheld)
            if of_method
            else (False, False, False)
        )


def test_an_obligation_without_words_is_no_permit():
    with pytest.raises(EnforceError, match="cannot be handed on"):
        Permits().rendered(permit("a", ({"id": "other"},)), of_method=False, checked=False, report_by=1.0)


def test_a_refusal_says_why():
    info = ErrorInfo(reason="first", metadata={"reasons": "first,second", "policy_revision": "p1"})
    found = refused(Final(code=Code.PERMISSION_DENIED, message="no", error_info=info, retry_after=1.5), "call-1")
    answer = pb.CheckResponse.FromString(found.data)
    assert (found.call_id, answer.decision, answer.call_id) == ("call-1", pb.DECISION_DENY, "call-1")
    assert (list(answer.reasons), answer.policy_revision, answer.retry_after.ToMilliseconds()) == (
        ["first", "second"], "p1", 1500,
    )  # fmt: skip
