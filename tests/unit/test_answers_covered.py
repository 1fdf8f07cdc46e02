"""An answer about exactly whom the request was about takes a short way; the long one would come to the very same."""

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pipeline_rig import GERMAN, NOBODY_KNOWS, NOW, US, Rig, get, permit

from sidecar.attributes.messages import ParsedMessage
from sidecar.attributes.reach import Reach
from sidecar.attributes.resource import Classified
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.enforcement.call import Call, Final
from sidecar.enforcement.cover import decidable
from sidecar.enforcement.guarded import Guarded
from sidecar.enforcement.obligations import Duties

pytestmark = pytest.mark.unit

NAMES = (US, GERMAN, NOBODY_KNOWS, 0)
REDACTS = {"id": "redact_fields", "categories": ["id_contact"], "fields": []}
people = st.tuples(st.sampled_from(NAMES), st.sampled_from(("", "US", "DE")))


def shown(method: str, some: list[tuple[int, str]]) -> bytes:
    profiles = [pb.Profile(user_id=number, country=country, handle="h") for number, country in some]
    if method == "ListProfiles":
        return pb.ListProfilesResponse(profiles=profiles).SerializeToString()
    if method == "ListMessages":
        return pb.Message(sender_id=some[0][0]).SerializeToString()
    return profiles[0].SerializeToString()


def asked(method: str, number: int) -> bytes:
    if method == "ListProfiles":
        return pb.ListProfilesRequest().SerializeToString()
    return get(number)  # the same bytes as a ListMessagesRequest


class Scene:
    """A call whose request was permitted, and an answer of it."""

    def __init__(self, method: str, number: int, some: list[tuple[int, str]], *, redacts: bool) -> None:
        self.rig = Rig()
        self.rig.engine.rule = lambda _request: permit(*([REDACTS] if redacts else []))
        call: Call = self.rig.call(method)
        self.guarded = Guarded(self.rig.point._parts, *self.rig.point._begun(call))
        self._sent, self._shown = asked(method, number), shown(method, some)

    async def play(self) -> tuple[ParsedMessage, Classified, Reach | None]:
        assert await self.guarded.open() is None
        assert isinstance(await self.guarded.admit(self._sent), bytes)
        description = self.guarded.description
        parsed = description.answer.parse(self._shown)
        classified = description.answer_subjects(self.rig.point._parts.classifier, parsed, None, NOW)
        return parsed, classified, decidable(classified, description)


async def both(scene: Scene) -> tuple[Duties | None, Duties | Final, int]:
    """What either way comes to, and how many records the long one made."""
    parsed, classified, reached = await scene.play()
    straight, before = scene.guarded._ordered_already(classified, reached), len(scene.rig.records.log)
    return (
        straight,
        await scene.guarded._duties_for(parsed, classified, reached),
        len(scene.rig.records.log) - before,
    )


@given(
    st.sampled_from(("GetProfile", "ListProfiles", "ListMessages")), st.sampled_from(NAMES),
    st.lists(people, min_size=1, max_size=3), st.booleans(),
)  # fmt: skip
@example("GetProfile", US, [(US, "US")], True)
@example("GetProfile", US, [(GERMAN, "DE")], False)
def test_where_the_short_way_is_taken_the_long_one_finds_the_same_and_asks_nobody(
    method: str, number: int, some: list[tuple[int, str]], redacts: bool
) -> None:
    straight, general, records = asyncio.run(both(Scene(method, number, some, redacts=redacts)))
    if straight is not None:
        assert general is straight
        assert records == 0


def test_it_is_taken_for_the_ordinary_answer() -> None:
    straight, _, records = asyncio.run(both(Scene("GetProfile", US, [(US, "US")], redacts=True)))
    assert straight is not None
    assert straight.redact == {"id_contact"}
    assert records == 0


@pytest.mark.parametrize(
    ("method", "some"),
    [
        ("GetProfile", [(GERMAN, "")]),  # somebody else
        ("GetProfile", [(0, "")]),  # nobody
        ("ListProfiles", [(US, "")]),  # the request named nobody
    ],
)
def test_it_is_not_taken_for_anybody_whom_the_request_did_not_name(method: str, some: list[tuple[int, str]]) -> None:
    straight, _, records = asyncio.run(both(Scene(method, US, some, redacts=False)))
    assert straight is None
    assert records == 1


def test_it_is_not_taken_where_the_answer_says_another_class_of_them() -> None:
    straight, _, records = asyncio.run(both(Scene("GetProfile", GERMAN, [(GERMAN, "US")], redacts=False)))
    assert (straight, records) == (None, 1)
