"""Claims are shared between callers who say the same in the same place, and by nobody for whom something else is in force."""

import math

import pytest
from pipeline_rig import NOW, Authorizations, Grants

from sidecar.enforcement import circumstances
from sidecar.enforcement.circumstances import EXCEPTION, JUSTIFICATION, PURPOSE, TICKET, Circumstances, Claims
from sidecar.errors import IdentifyError, InterceptError
from sidecar.exceptions.authorization_store import Lifted
from sidecar.vocabulary import ExceptionGrant, GrantScope, Place, SecurityRequirements

pytestmark = pytest.mark.unit

SAID = ((PURPOSE, "user_support"), (TICKET, "SUP-1"))
GRANT = ExceptionGrant(
    id="x1", person="amy", scope=GrantScope(), justification="j", ticket="SUP-1", not_before="2026-01-01T00:00:00Z",
    expires="2026-12-01T00:00:00Z", requested_by="a", approvers=("b", "c"),
)  # fmt: skip


class Reader:
    """Reads claims as a call does; what is in force is bent by a test."""

    def __init__(self, destination: Place | None = None) -> None:
        self.grants, self.authorizations = Grants(), Authorizations()
        self.read = Circumstances(
            ticket_pattern=r"[A-Z]+-\d+", justification_pattern=r"[a-z_]+", destination=destination,
            grants=self.grants, authorizations=self.authorizations,
        )  # fmt: skip

    def __call__(self, *said: tuple[str, str], person: str = "amy", place: str | None = "US") -> Claims:
        return self.read.claims(said, person, place, NOW)


def test_the_same_words_are_one_object_whoever_says_them_and_one_context_a_minute() -> None:
    ask = Reader()
    first = ask(*SAID)
    assert ask(*SAID, person="ben") is first
    assert ask(("traceparent", "00"), *reversed(SAID)) is first
    minute = first.environment("request", "2026-11-23T04:54:00Z")
    assert first.environment("response", "2026-11-23T04:54:00Z").phase == "response"
    assert first.environment("request", "2026-11-23T04:54:00Z") is minute
    assert first.environment("request", "2026-11-23T04:55:00Z").time == "2026-11-23T04:55:00Z"


@pytest.mark.parametrize("other", [
    (), SAID[:1], SAID[1:], ((PURPOSE, "billing"), SAID[1]), (SAID[0], (TICKET, "SUP-2")), (*SAID, (JUSTIFICATION, "j")),
])  # fmt: skip
def test_other_words_are_other_claims(other: tuple[tuple[str, str], ...]) -> None:
    ask = Reader()
    first = ask(*SAID).environment("request", "t")
    found = ask(*other).environment("request", "t")
    said = dict(other)
    assert (found.purpose, found.ticket, found.justification) == tuple(map(said.get, (PURPOSE, TICKET, JUSTIFICATION)))
    assert found != first


def test_where_answers_go_to_where_the_caller_is_operated_from_the_place_tells_claims_apart() -> None:
    ask = Reader()
    places = [
        ask(*SAID, place=one).environment("request", "t").network.destination.country for one in ("US", "DE", None)
    ]
    assert places == ["US", "DE", None]


def test_what_is_lifted_or_claimed_by_one_call_is_neither_shared_nor_hidden_by_what_is() -> None:
    ask = Reader()
    plain = ask(*SAID)
    ask.authorizations.lifted = Lifted((), SecurityRequirements(version="1"), NOW + 60)
    lifted = ask(*SAID)
    assert lifted.environment("request", "t").security_requirements.version == "1"
    assert lifted.expires_at == NOW + 60
    ask.authorizations.lifted = circumstances.NOTHING
    ask.grants.grant = GRANT
    assert ask(*SAID, (EXCEPTION, "x1")).exceptions == (GRANT,)
    assert ask(*SAID) is plain
    assert (plain.exceptions, plain.expires_at) == ((), math.inf)
    ask.grants.grant = None
    with pytest.raises(IdentifyError):
        ask(*SAID, (EXCEPTION, "x1"))


def test_words_of_the_wrong_form_are_refused_every_time() -> None:
    ask = Reader()
    for _ in range(2):
        with pytest.raises(InterceptError):
            ask((TICKET, "nonsense"))
        with pytest.raises(InterceptError):
            ask(*SAID, SAID[0])


def test_no_more_claims_are_kept_than_the_bound() -> None:
    ask = Reader()
    for number in range(circumstances.MAX_KEPT + 10):
        ask((TICKET, f"SUP-{number}"))
    assert len(ask.read._kept) <= circumstances.MAX_KEPT


def test_long_words_are_read_each_time_and_not_kept() -> None:
    ask = Reader()
    said = (TICKET, "SUP-" + "1" * circumstances.MAX_WORD)
    assert ask(said) is not ask(said)
    assert not ask.read._kept
