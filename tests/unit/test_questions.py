"""Documents put together from parts are what `canonical` writes, and what is remembered never answers for another."""

import hashlib
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_rig import SERVICE, describer

from sidecar.attributes.described import Described
from sidecar.attributes.reach import Reach
from sidecar.decision.cache import DecisionCache
from sidecar.enforcement.questions import MAX_KEPT, Question, Questions
from sidecar.vocabulary import (
    AccessRequest,
    Authentication,
    Decision,
    Effect,
    Environment,
    Network,
    Person,
    Place,
    Reason,
    Subject,
    SubjectCounts,
    Workload,
    canonical,
)

pytestmark = pytest.mark.unit

PROFILE = describer().method(f"/{SERVICE}/GetProfile")
# What could be taken for the place where the counts stand, were it not escaped.
TRAP = '"subjects":{"us":0,"non_us":0,"unknown":0,"own":0,"pending":false}'
texts = st.sampled_from([TRAP, '"', "\\", "", "é\n"]) | st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
maybe = st.none() | texts
tuples = st.lists(texts, max_size=3).map(tuple)
numbers = st.integers(0, 1 << 31)
subjects = st.builds(
    Subject,
    kind=st.sampled_from((None, "personnel", "workload", "data_subject")),
    person=st.builds(Person, id=maybe, roles=tuples, us_personnel=st.none() | st.booleans()),
    authentication=st.builds(Authentication, aal=st.none() | st.integers(1, 3), methods=tuples),
    workload=st.builds(Workload, id=maybe, may=tuples), delegation=tuples, source=maybe,
)  # fmt: skip
counts = st.builds(SubjectCounts, us=numbers, non_us=numbers, unknown=numbers, own=numbers, pending=st.booleans())
contexts = st.builds(
    Environment, purpose=maybe, ticket=maybe, network=st.builds(Network, destination=st.builds(Place, country=maybe)),
    time=texts, phase=st.sampled_from(("request", "response")),
)  # fmt: skip
descriptions = st.builds(
    lambda kind, categories, classes, country: Described(
        action=PROFILE.action, resource_type=kind, reach=PROFILE.reach, dataset=PROFILE.dataset,
        location=Place(country=country), categories=categories, classes=classes, listed_identifiers=classes,
        computed=categories,
    ),
    texts, tuples, tuples, maybe,
)  # fmt: skip


def plainly(
    subject: Subject, described: Described, number: SubjectCounts, context: Environment, reached: Reach | None = None
) -> bytes:
    return canonical(
        AccessRequest(
            subject=subject, action=described.action, resource=described.resource(number, reached), context=context
        )
    )


@given(st.lists(st.tuples(subjects, descriptions, counts, contexts), min_size=1, max_size=4))
def test_every_document_is_what_canonical_writes(
    some: list[tuple[Subject, Described, SubjectCounts, Environment]],
) -> None:
    questions = Questions()
    for subject, described, number, context in [*some, *some]:
        assert questions.of(subject, described, number, context) == plainly(subject, described, number, context)
    for subject, _, _, _ in some:  # parts that were seen before, in other company
        for _, described, number, context in some:
            assert questions.of(subject, described, number, context) == plainly(subject, described, number, context)


@given(subjects, counts, contexts)
def test_what_a_message_holds_beyond_its_description_is_asked_about(
    subject: Subject, number: SubjectCounts, context: Environment
) -> None:
    beyond = Reach(categories=frozenset({"biometric_identifier"}), classes=frozenset({"protected"}))
    asked = Questions().of(subject, PROFILE, number, context, beyond)
    assert asked == plainly(subject, PROFILE, number, context, beyond)
    assert b"biometric_identifier" in asked


def test_an_equal_part_that_is_another_object_gives_the_same_bytes() -> None:
    questions, context = Questions(), Environment(time="t", phase="request")
    one, other = Subject(source="s"), Subject(source="s")
    first = questions.of(one, PROFILE, SubjectCounts(us=1), context)
    assert questions.of(one, PROFILE, SubjectCounts(us=1), context) is first
    assert questions.of(other, replace(PROFILE), SubjectCounts(us=1), context) == first


def test_what_is_remembered_is_bounded_and_outlives_nothing_it_is_told_apart_by() -> None:
    questions, context = Questions(), Environment(time="t", phase="request")
    for number in range(3 * MAX_KEPT):
        subject = Subject(source=str(number))  # garbage at once, were it not held: its id would be given to the next
        document = msgspec.json.decode(questions.of(subject, PROFILE, SubjectCounts(), context), type=AccessRequest)
        assert document.subject == subject
    assert len(questions._whole.made) <= MAX_KEPT
    assert len(questions._subjects.made) <= MAX_KEPT


def test_the_cache_finds_by_its_own_digest_what_was_kept_under_plain_bytes() -> None:
    asked = Question(b"a document")
    assert asked.digest == hashlib.sha256(b"a document").digest()
    cache = DecisionCache(clock=lambda: 0.0)
    made = Decision(effect=Effect.PERMIT, reasons=(Reason(code="c", message="", rule="r"),), ttl_seconds=9)
    assert cache.put(b"a document", ("p",), made, cache.ticket())
    assert cache.get(asked, ("p",)) == made
    assert cache.get(Question(b"another"), ("p",)) is None
