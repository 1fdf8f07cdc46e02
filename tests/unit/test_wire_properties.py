"""A message read as bytes is found to hold, and loses, what it holds and loses by way of the parsed message."""

from collections.abc import Callable
from random import Random

import pytest
from generated_apis import CATEGORIES, Api, api, content, nearly
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.attributes.messages import MalformedMessageError, MessagePlan, ParsedMessage, encode
from sidecar.attributes.presence import inventory
from sidecar.attributes.words import IMPERSONAL
from sidecar.enforcement.obligations import Duties, Release
from sidecar.enforcement.release import weightiest

pytestmark = pytest.mark.unit

seeds = st.integers(0, 1 << 40)


def found(parsed: ParsedMessage) -> tuple[object, ...]:
    return (parsed.subjects, parsed.records, parsed.unnamed, parsed.unclassified, parsed.stripped, parsed.payloads,
            parsed.exact, parsed.plan, encode(parsed.message))  # fmt: skip


def tried(what: Callable[[], object]) -> object:
    try:
        return what()
    except MalformedMessageError as error:
        return str(error)


def read_alike(plan: MessagePlan, data: bytes) -> ParsedMessage | None:
    """The message, where it was read as bytes; whatever way it took, the walk finds the same."""
    walked = tried(lambda: plan.walk(data))
    read = tried(lambda: plan.parse(data))
    if isinstance(walked, str) or isinstance(read, str):
        assert walked == read
        return None
    assert found(read) == found(walked)
    if read.reading is None:
        return None
    assert walked.exact
    assert read.reading.personal == (not inventory(plan, walked.message)[1] <= IMPERSONAL)
    return read


def classes_of(parsed: ParsedMessage, dice: Random) -> dict[tuple[str, str], str]:
    known = {"u": "us", "f": "non_us"}
    found = {(one.kind, one.id): known.get(one.id[0], "unknown") for one in parsed.subjects}
    return {key: class_ for key, class_ in found.items() if dice.random() < 0.9}


def duties_of(one: Api, dice: Random) -> Duties:
    if dice.random() < 0.15:
        return Duties.none()
    words = (*CATEGORIES, *one.fields)
    return Duties(
        redact=frozenset(dice.sample(words, dice.choice((0, 1, 3)))),
        mask=frozenset(dice.sample(words, dice.choice((0, 1, 3)))),
        drop=frozenset(dice.sample(("us", "non_us", "unknown"), dice.choice((0, 0, 1, 2)))),
        limit=dice.choice((None, None, 0, 1, 5)),
    )


def figures(state: Release) -> tuple[object, ...]:
    return state.records, state.dropped, state.redacted, state.subjects, state.by_class()


def released_alike(duties: Duties, parsed: ParsedMessage, classes: dict, before: int) -> None:
    """What leaves, and its figures, are those of the editor of parsed messages."""
    one, other = Release(), Release()
    for state in (one, other):
        state.records = before
    loose = weightiest(classes.values()) if parsed.source.about == "named" else "unknown"
    expected = duties.edit(parsed, classes, False, one, loose=loose)
    out = duties.apply(parsed, classes, False, other)
    assert out == expected
    assert (out is parsed.data) == (expected is parsed.data)
    assert figures(other) == figures(one)


def checked(seed: int) -> tuple[int, int]:
    """One message of one made-up API, as it is and damaged; how many were read as bytes, of how many."""
    dice = Random(seed)
    one = api(dice.randrange(300))
    plan = dice.choice(one.plans)
    whole = content(plan, dice)
    number = 0
    other = content(plan, dice)
    for data in (whole, nearly(whole, dice, other), nearly(whole, dice, other)):
        parsed = read_alike(plan, data)
        if parsed is not None:
            number += 1
            released_alike(duties_of(one, dice), parsed, classes_of(parsed, dice), dice.choice((0, 0, 2)))
    return number, 3


@settings(max_examples=250, deadline=None)
@given(seeds)
def test_reading_bytes_finds_and_removes_what_the_parsed_message_shows(seed: int) -> None:
    checked(seed)


def test_many_messages_are_read_as_bytes() -> None:
    counts = [checked(seed) for seed in range(300)]
    read = sum(one for one, _ in counts)
    assert 150 < read < sum(of for _, of in counts), "both ways are taken"
