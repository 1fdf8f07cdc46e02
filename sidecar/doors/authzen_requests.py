"""The Access Request and Approval Profile (draft), mapped on exceptions.

A deny that an exception could lift carries `access_request`. What is submitted becomes a draft in the folder of grants,
recorded before it is written; two approvers sign it or do not. Approval permits nothing: the caller evaluates again with
`context.approval`, whose id is the grant's. The sidecar signs nothing and decides about no request.

Bounds: a denial can be followed up for 10 minutes, by the workload that was denied, in this process; 5 requests of a
person and 256 in all wait at once, 20 of a person are made in a day; one item a request; no callback.
"""

import asyncio
import base64
import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final as Constant

from sidecar.attributes.entities import EntityDescription
from sidecar.doors.authzen_drafts import Drafts, Request
from sidecar.doors.authzen_evaluation import PEOPLE, Asker, Denied, called, failed, instant
from sidecar.doors.authzen_json import (
    Entity,
    Json,
    MalformedError,
    Question,
    Word,
    context,
    member,
    optional_text,
    question,
    text,
    written,
)
from sidecar.enforcement import refusals
from sidecar.enforcement.call import Final
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.enforcement.rehearsal import Search
from sidecar.errors import Code, IdentifyError, InterceptError, RecordError
from sidecar.exceptions import jws
from sidecar.exceptions.grant import GrantPayload
from sidecar.exceptions.jws import SignedObjectError
from sidecar.vocabulary import WAIVABLE, ReasonCode

TEMPLATE: Constant = "customhouse-exception"
CAPABILITY: Constant = "urn:openid:authzen:capability:access-request"
PATH: Constant = "/access/v1/requests"
_LIFTED = WAIVABLE | {ReasonCode.APPROVAL_REQUIRED}
_ERROR = "urn:openid:authzen:access-request:error:"
_WINDOW, _REMEMBERED = 600.0, 4096
_OF_ONE, _IN_ALL = 5, 256
_OF_A_DAY, _DAY = 20, 86_400.0
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_SUBJECTS = ("us", "non_us", "unknown")

Record = Callable[[Mapping[str, str | int | bool | list[str] | None]], Awaitable[None]]
"""Writes an `admin_action`; RecordError when it is not durable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer of this profile. `problem`: it is an RFC 9457 problem document."""

    status: int
    document: Mapping[str, object]
    problem: bool = False
    headers: tuple[tuple[str, str], ...] = ()


class ProblemError(Exception):
    """What this profile refuses, under its own name."""

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail

    def reply(self) -> Reply:
        """As RFC 9457 has it."""
        kind = f"{_ERROR}{self.kind}" if self.kind else "about:blank"
        return Reply(status=self.status, problem=True, document={
            "type": kind, "title": self.kind.replace("_", " ") or "not accepted", "status": self.status,
            "detail": self.detail,
        })  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    """A denial. `asked` is a digest: what callers send may be long, and many are remembered."""

    call_id: str
    asked: bytes
    described: EntityDescription
    owner: str
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a request has to look like: patterns of the settings, and the longest window in seconds."""

    ticket: re.Pattern[str]
    justification: re.Pattern[str]
    max_window: float


@dataclass(slots=True, kw_only=True)
class Requests:
    """Takes requests, and says what has become of them. One event loop.

    `clock` gives unix seconds, `new_id` a request's id that nobody can guess.
    """

    point: EnforcementPoint
    drafts: Drafts
    record: Record
    clock: Callable[[], float]
    new_id: Callable[[], str]
    terms: Terms
    _denials: OrderedDict[str, _Remembered] = field(default_factory=OrderedDict)
    _made: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def offer(self, denied: Denied) -> Mapping[str, object]:
        """`access_request` for a deny that an exception could lift; nothing for any other."""
        codes = set(denied.codes)
        if denied.described is None or denied.question.subject.type not in PEOPLE or not codes or codes - _LIFTED:
            return {}
        try:
            owner = self.point.workload(denied.asker.peer)
        except IdentifyError:
            return {}
        until = self.clock() + _WINDOW
        self._denials[denied.call_id] = _Remembered(
            call_id=denied.call_id, asked=_digest(denied.question), described=denied.described, owner=owner, until=until
        )  # fmt: skip
        while len(self._denials) > _REMEMBERED:
            self._denials.popitem(last=False)
        offered: dict[str, object] = {"template": TEMPLATE, "expires_at": instant(until)}
        if denied.asker.base:
            offered["endpoint"] = denied.asker.base + PATH
        return {"access_request": offered}

    async def submit(self, asker: Asker, said: Mapping[str, Json], key: str | None) -> Reply:
        """`POST /access/v1/requests`. MalformedError, ProblemError."""
        asked = question(said)
        search = self.point.search(called(asker, asked, "requests"))
        refused = await search.open(alone=False)
        if refused is not None:
            return _not_allowed(refused, search.call_id)
        async with self._turn:  # otherwise many at once would each find room
            try:
                bound = self._bound(asker, asked, said)
                payload = self._payload(asked, said, bound, self._id(bound, asked.subject.id, key))
                standing = await self._same(payload)
                if standing is None:
                    await self._room(payload.person)
            except (ProblemError, MalformedError) as error:
                code = Code.RESOURCE_EXHAUSTED if isinstance(error, ProblemError) and error.status == 429 else None
                await search.refuse(InterceptError(str(error), code=code))
                raise
            made = standing or await self._asked_for(search, asker, asked, bound, payload)
        if isinstance(made, Final):
            return _not_allowed(made, search.call_id)
        if standing is not None:
            await search.close(None, (), 0, told=refusals.ASKED_FOR)
        reply = self._task(asker, made)
        place = (("location", f"{asker.base}{PATH}/{payload.id}"),) if asker.base else ()
        return Reply(status=202, document=reply.document, headers=(*place, *reply.headers))

    async def status(self, asker: Asker, name: str) -> Reply:
        """`GET /access/v1/requests/{id}`: for whoever may speak for the person. ProblemError."""
        found = await self._visible(asker, name)
        if found.state == "gone":
            raise ProblemError(410, "task_expired", "the exception has ended")
        return self._task(asker, found)

    async def cancel(self, asker: Asker, name: str) -> Reply:
        """`POST /access/v1/requests/{id}/cancel`: take a pending request back. ProblemError."""
        found = await self._visible(asker, name)
        if found.state != "pending":
            raise ProblemError(409, "invalid_task_state", f"it is {found.state}")
        search = self.point.search(called(asker, _speaking_for(found), "requests"))
        final = await search.open(alone=False) or await search.close(None, (), 0, told=refusals.ASKED_FOR)
        if final.code is not Code.OK:
            return _not_allowed(final, search.call_id)
        done = {"action": "access_request_cancelled", "by": found.payload.person, "id": name, "call_id": search.call_id}
        try:
            await self.record(done)
            await asyncio.to_thread(self.drafts.cancel, found)
        except RecordError as error:
            raise ProblemError(503, "", error.message) from None
        except OSError:
            raise ProblemError(409, "invalid_task_state", "it is not pending any more") from None
        return self._task(asker, await self._visible(asker, name))

    # -- a request, checked ------------------------------------------------------------------------------------------

    def _bound(self, asker: Asker, asked: Question, said: Mapping[str, Json]) -> _Remembered:
        """The denial that is followed up. ProblemError."""
        if said.get("items") is not None:
            raise ProblemError(400, "", "one item a request: send one for each")
        denial = text(member(said, "denial"), "evaluation_id", "denial")
        known = self._denials.get(denial)
        if known is None:
            raise ProblemError(400, "invalid_denial_binding", "no such denial is known here: evaluate again")
        if self.clock() >= known.until:
            raise ProblemError(410, "expired_denial", "the denial is too long ago: evaluate again")
        if known.asked != _digest(asked) or known.owner != self.point.workload(asker.peer):
            raise ProblemError(400, "invalid_denial_binding", "the denial was of another question, or another caller's")
        return known

    def _payload(
        self, asked: Question, said: Mapping[str, Json], bound: _Remembered, name: str
    ) -> GrantPayload:  # fmt: skip
        wanted, around = said.get("requested_access"), context(said)
        wanted = wanted if isinstance(wanted, dict) else {}
        ticket = text(around, "ticket", "context")
        justification = text(around, "justification", "context")
        if not self.terms.ticket.fullmatch(ticket) or not self.terms.justification.fullmatch(justification):
            raise MalformedError("context.ticket or context.justification is not of the configured form")
        now, until = self.clock(), optional_text(wanted, "requested_until", "requested_access")
        subjects = optional_text(wanted, "subjects", "requested_access") or "us"
        if subjects not in _SUBJECTS:
            raise MalformedError("requested_access.subjects is no class of data subjects")
        try:
            ends = now + self.terms.max_window if until is None else jws.instant(until, "requested_until")
            return self.drafts.check({
                "id": name, "person": asked.subject.id,
                "scope": {
                    "services": [bound.described.action.service], "categories": sorted(bound.described.categories),
                    "subjects": subjects,
                },
                "justification": justification, "ticket": ticket, "not_before": instant(now),
                "expires": instant(min(ends, int(now) + self.terms.max_window)), "requested_by": asked.subject.id,
                "max_records": wanted.get("max_records"),
            })  # fmt: skip
        except SignedObjectError as error:
            raise MalformedError(f"no exception could be granted: {error}") from None

    def _id(self, bound: _Remembered, person: str, key: str | None) -> str:
        """A repeated submission with the same key is the same request, whichever worker it comes to."""
        if key is None:
            return self.new_id()
        if not _KEY.fullmatch(key):
            raise MalformedError("Idempotency-Key is not 1 to 255 printable characters")
        digest = hashlib.sha256(f"{bound.owner}\0{person}\0{key}".encode()).digest()
        return f"EX-{base64.b32encode(digest).decode('ascii').lower()[:40]}"

    async def _same(self, payload: GrantPayload) -> Request | None:
        """The request that was made under this id before. ProblemError when it was another one."""
        found = await asyncio.to_thread(self.drafts.of, payload.id)
        if found is None:
            return None
        if _asks(found.payload) != _asks(payload):
            raise ProblemError(409, "duplicate_request", "another request was made under this Idempotency-Key")
        return found

    async def _room(self, person: str) -> None:
        try:
            waiting = await asyncio.to_thread(lambda: [one.payload.person for one in self.drafts.pending()])
        except OverflowError:
            raise ProblemError(429, "", "there are too many requests") from None
        if waiting.count(person) >= _OF_ONE or len(waiting) >= _IN_ALL:
            raise ProblemError(429, "", "too many requests wait for approvers")
        now = self.clock()
        recent = [one for one in self._made.pop(person, ()) if one > now - _DAY]
        full = len(recent) >= _OF_A_DAY  # those taken back count: each has left a file
        self._made[person] = recent if full else [*recent, now]
        while len(self._made) > _REMEMBERED:
            self._made.popitem(last=False)
        if full:
            raise ProblemError(429, "", "too many requests in a day")

    async def _asked_for(
        self, search: Search, asker: Asker, asked: Question, bound: _Remembered, payload: GrantPayload
    ) -> Request | Final:  # fmt: skip
        """Record it, then write it."""
        final = await search.close(bound.described, (asked.resource.id,), 0, told=refusals.ASKED_FOR)
        if final.code is not Code.OK:
            return final
        try:
            await self.record({
                "action": "access_requested", "by": payload.person, "id": payload.id, "call_id": search.call_id,
                "denied": bound.call_id, "workload": self.point.workload(asker.peer), "ticket": payload.ticket,
                "services": list(payload.scope.services), "categories": list(payload.scope.categories),
                "expires": payload.expires,
            })  # fmt: skip
            await asyncio.to_thread(self.drafts.write, payload)
        except RecordError as error:
            raise ProblemError(503, "", error.message) from None
        except FileExistsError:
            pass  # the same request, at the same moment
        except OSError:
            raise ProblemError(503, "", "the request cannot be written now") from None
        return await asyncio.to_thread(self.drafts.of, payload.id) or Final(code=Code.UNAVAILABLE, message="it is gone")

    # -- what has become of it ---------------------------------------------------------------------------------------

    async def _visible(self, asker: Asker, name: str) -> Request:
        found = await asyncio.to_thread(self.drafts.of, name)
        if found is None or await self.point.knows(called(asker, _speaking_for(found), "requests")) is not None:
            raise ProblemError(404, "unknown_task", "no such request is known here, or not to you")
        return found

    def _task(self, asker: Asker, found: Request) -> Reply:
        task: dict[str, object] = {"id": found.id, "status": found.state, "expires_at": found.payload.expires}
        place = f"{asker.base}{PATH}/{found.id}"
        if asker.base:
            task["status_endpoint"] = place
        if found.state == "pending":
            task["progress"] = {"current_step": min(found.signers + 1, 2), "total_steps": 2, "step_name": "approval"}
            if asker.base:
                task["links"] = {"cancel": f"{place}/cancel"}
        document: dict[str, object] = {"task": task}
        if found.state == "approved":
            approval = {"id": found.id, "approved_until": found.payload.expires}
            document["result"] = {"mode": "reevaluate", "approval": approval}
        waits = (("retry-after", "5"),) if found.state == "pending" else ()
        return Reply(status=200, document=document, headers=waits)


def _digest(asked: Question) -> bytes:
    """Of everything that a denial was about but its circumstances."""
    subject, action, resource = asked.subject, asked.action, asked.resource
    whole = [subject.type, subject.id, action.name, action.properties, resource.type, resource.id, resource.properties]
    return hashlib.sha256(written(whole)).digest()


def _speaking_for(found: Request) -> Question:
    person = Entity(type="person", id=found.payload.person)
    return Question(subject=person, action=Word(name="read"), resource=person)


def _asks(payload: GrantPayload) -> tuple[object, ...]:
    return payload.person, payload.scope, payload.ticket, payload.justification, payload.max_records


def _not_allowed(final: Final, call_id: str) -> Reply:
    answer = failed(final, call_id)
    status = 403 if final.code is Code.PERMISSION_DENIED else answer.status
    return ProblemError(status, "", answer.message).reply()
