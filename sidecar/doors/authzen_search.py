"""AuthZEN's searches, as far as they can be answered without giving away what nobody asked for.

* **Actions**: which of a type's actions somebody may do on a resource. Each is decided, none is an access.
* **Subjects**: which people of the directory may. It tells who works here and who may what, so only workloads that may
  name people ask it; a page of the directory at a time, 1,000 people looked at and 100 results at most.
* **Resources**: not answered (501), and not advertised. The sidecar holds hashes of data subjects' ids and no ids; a
  caller that has candidates asks `evaluations`.

A search is one call with one record, see `enforcement.rehearsal`. Exceptions and approvals count for nothing in it. What
cannot be decided now ends it with an error: an empty list would be an answer.
"""

import asyncio
import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final as Constant
from typing import Protocol

from sidecar.attributes.entities import Entities, EntityDescription
from sidecar.doors.authzen_evaluation import PEOPLE, WORKLOADS, Answer, Asker, called, described_by, failed
from sidecar.doors.authzen_json import (
    Entity,
    Json,
    MalformedError,
    Question,
    Word,
    context,
    entity,
    parse,
    text,
    word,
    written,
)
from sidecar.enforcement.call import Call, Final
from sidecar.enforcement.circumstances import EXCEPTION
from sidecar.enforcement.permits import Permit
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.enforcement.rehearsal import Search
from sidecar.errors import Code, DecideError, DescribeError, IdentifyError, StageError
from sidecar.vocabulary import ReasonCode

PAGE: Constant = 100
LOOKED_AT: Constant = 1000
_AT_ONCE = 50
_NOT_HERE = frozenset({"exception", "approval"})
_MOST_TOKEN = 512
_UNDECIDED = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.UNAUTHENTICATED, Code.INVALID_ARGUMENT})


class People(Protocol):
    """The personnel directory, page by page."""

    @property
    def revision(self) -> str:
        """Digest of the snapshot in force."""

    def ids(self, start: int, most: int) -> list[str]:
        """Personnel ids from this place on, in the snapshot's own order; empty past its end. IdentifyError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    limit: int
    token: str | None


class Searches:
    """Answers searches. One event loop."""

    def __init__(self, point: EnforcementPoint, entities: Entities, people: People) -> None:
        self._point, self._entities, self._people = point, entities, people

    async def actions(self, asker: Asker, said: Mapping[str, Json]) -> Answer:
        """`/access/v1/search/action`. MalformedError."""
        _page(said)
        asker = _unexcepted(asker)
        plain = Question(
            subject=entity(said, "subject"), action=Word(name="search"), resource=entity(said, "resource"),
            context=_context(said),
        )  # fmt: skip
        call = replace(called(asker, plain, "actions"), deadline=None)
        search = self._point.search(call)
        nobody = plain.subject.type not in PEOPLE | WORKLOADS
        refused = await search.open(alone=nobody)
        if refused is not None:
            return _not_opened(asker, plain, refused, search.call_id)
        results: list[object] = []
        for name in () if nobody else self._entities.actions(plain.resource.type):
            found = await self._may(search, call, replace(plain, action=Word(name=name)))
            if isinstance(found, Final):
                return await _undecided(search, found)
            if found:
                results.append({"name": name})
        return await self._closed(search, plain.resource, results)

    async def subjects(self, asker: Asker, said: Mapping[str, Json]) -> Answer:
        """`/access/v1/search/subject`. MalformedError."""
        page, asker = _page(said), _unexcepted(asker)
        asked = Question(
            subject=entity(said, "subject", named=False), action=word(said), resource=entity(said, "resource"),
            context=_context(said),
        )  # fmt: skip
        start = self._place(page.token, asked)
        call = replace(called(asker, asked, "subjects"), deadline=None, asserted=None, claimed=None)
        search = self._point.search(call)
        refused = await search.open(alone=not asker.bearer)
        if refused is not None:
            return failed(refused, search.call_id)
        if not asker.asserts:
            final = await search.refuse(IdentifyError(
                "this workload may not search for people", reason=ReasonCode.UNIDENTIFIED_PERSON,
                code=Code.PERMISSION_DENIED, operator="a subject search needs `asserts` in identity.workloads",
            ))  # fmt: skip
            return Answer(status=403, message=final.message, context={"id": search.call_id})
        if asked.subject.type not in PEOPLE or self._described(asked) is None:
            return await self._closed(search, asked.resource, [], page={"next_token": ""})
        # Each is asked about by name: the searcher's own token speaks for nobody else.
        named = Asker(peer=asker.peer, asserts=True, metadata=tuple([
            one for one in asker.metadata if one[0] != "authorization"
        ]))  # fmt: skip
        try:
            return await self._people_who_may(search, named, asked, start, page)
        except StageError as error:
            return failed(await search.refuse(error), search.call_id)

    async def _people_who_may(
        self, search: Search, asker: Asker, asked: Question, start: int, page: _Page
    ) -> Answer:  # fmt: skip
        results: list[object] = []
        revision, at, until = self._people.revision, start, start + LOOKED_AT
        ended = False
        while not ended and at < until and len(results) < page.limit:
            names = self._people.ids(at, min(_AT_ONCE, until - at))
            ended = not names
            for name in names:
                one = replace(asked, subject=replace(asked.subject, id=name))
                found = await self._may(search, called(asker, one, "subjects"), one)
                if isinstance(found, Final):
                    return await _undecided(search, found)
                at += 1
                if found:
                    results.append({"type": asked.subject.type, "id": name})
                await asyncio.sleep(0)  # other calls do not wait for the whole page
                if len(results) == page.limit:
                    break
        if self._people.revision != revision:
            raise DecideError("the directory has changed meanwhile: search again", code=Code.UNAVAILABLE)
        following = "" if ended else _token(revision, at, asked)
        return await self._closed(search, asked.resource, results, {"next_token": following, "count": len(results)})

    async def _may(self, search: Search, call: Call, asked: Question) -> bool | Final:
        """Whether it would be permitted. A Final: nobody can tell now."""
        described = self._described(asked)
        if described is None:
            return False
        found = await search.ask(call, described, (asked.resource.id,))
        if isinstance(found, Permit):
            return True
        return found if found.code in _UNDECIDED else False

    def _described(self, asked: Question) -> EntityDescription | None:
        try:
            return described_by(self._entities, asked)
        except (DescribeError, IdentifyError):
            return None

    async def _closed(
        self, search: Search, resource: Entity, results: list[object], page: Mapping[str, object] | None = None
    ) -> Answer:
        try:
            described: EntityDescription | None = self._entities.of(resource.type, "search")
        except DescribeError:
            described = None
        final = await search.close(described, (resource.id,), len(results))
        if final.code is not Code.OK:
            return failed(final, search.call_id)
        return _results(results, search.call_id, page)

    def _place(self, token: str | None, asked: Question) -> int:
        """Where the page begins. MalformedError for a token of another search, or of a directory that is no more."""
        if token is None:
            return 0
        wrong = MalformedError("page.token is not of this search, or the directory has changed: begin anew")
        try:
            said = parse(urlsafe_b64decode(token.encode("ascii")))
        except ValueError:
            raise wrong from None
        at = said.get("at")
        if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < 1 << 40:
            raise wrong
        if token != _token(self._people.revision, at, asked):
            raise wrong
        return at


def _results(results: list[object], call_id: str, page: Mapping[str, object] | None) -> Answer:
    found: dict[str, object] = {"results": results, "context": {"id": call_id}}
    return Answer(decision=True, context=found if page is None else {**found, "page": page})


def _not_opened(asker: Asker, asked: Question, refused: Final, call_id: str) -> Answer:
    """A subject that nobody knows may do nothing; whoever may not ask is told so."""
    if refused.code is not Code.PERMISSION_DENIED:
        return failed(refused, call_id)
    if asked.subject.type in PEOPLE and not asker.bearer and not asker.asserts:
        return Answer(status=403, message=refused.message, context={"id": call_id})
    return _results([], call_id, None)


async def _undecided(search: Search, found: Final) -> Answer:
    reason = None if found.error_info is None else found.error_info.reason
    error = DecideError("the search cannot be decided now", reason=reason, code=found.code)
    return failed(await search.refuse(error), search.call_id)


def _context(said: Mapping[str, Json]) -> Mapping[str, Json]:
    return {key: value for key, value in context(said).items() if key not in _NOT_HERE}


def _unexcepted(asker: Asker) -> Asker:
    """Without the exception that a header claims: a search uses none up."""
    return replace(asker, metadata=tuple([one for one in asker.metadata if one[0] != EXCEPTION]))


def _page(said: Mapping[str, Json]) -> _Page:
    page = said.get("page")
    if page is None:
        return _Page(limit=PAGE, token=None)
    if not isinstance(page, dict):
        raise MalformedError("page is not an object")
    limit = page.get("limit", PAGE)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise MalformedError("page.limit is no number from 1 on")
    token = page.get("token")
    return _Page(limit=min(limit, PAGE), token=text(page, "token", "page", _MOST_TOKEN) if token else None)


def _token(revision: str, at: int, asked: Question) -> str:
    """Where the next page begins, and of what search. It protects nothing: it names a place in what may be searched."""
    query = [
        revision, asked.subject.type, asked.action.name, asked.action.properties, asked.resource.type, asked.resource.id,
        asked.resource.properties, asked.context,
    ]  # fmt: skip
    digest = hashlib.sha256(written(query)).hexdigest()[:16]
    return urlsafe_b64encode(written({"at": at, "of": digest})).decode("ascii")
