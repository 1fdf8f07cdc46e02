"""AuthZEN Authorization API 1.0: the decision API over HTTPS, for enforcement points that nobody here wrote.

Evaluation, evaluations, action and subject search, discovery; outcome reports as an extension; the Access Request and
Approval Profile (draft) where grants can be asked for. What weighs and what does not: `authzen_evaluation`. What is not
served is not advertised (`docs/authzen.md`).

* A deny is 200. 400 the request, 401 who sends it, 403 what they may not ask, 404, 405, 413, 415, 429, 500, 503 carry a
  message and permit nothing. No answer holds rule text or a stack trace.
* A workload without a verified certificate learns what discovery says, and nothing of its requests is read.
* `X-Request-ID` comes back as it was sent; one that is too long or not printable is refused.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final as Constant

from sidecar.doors.authzen_evaluation import Answer, Asker, Evaluator
from sidecar.doors.authzen_http import TEXT, HttpHead, HttpResponse
from sidecar.doors.authzen_json import (
    Json,
    JsonObject,
    MalformedError,
    Question,
    parse,
    question,
    text,
    written,
)
from sidecar.doors.authzen_outcome import Outcomes
from sidecar.doors.authzen_requests import CAPABILITY, PATH, ProblemError, Reply, Requests
from sidecar.doors.authzen_search import Searches
from sidecar.enforcement.call import Peer
from sidecar.enforcement.metadata import INPUTS, from_caller

EVALUATION: Constant = "/access/v1/evaluation"
EVALUATIONS: Constant = "/access/v1/evaluations"
SUBJECTS: Constant = "/access/v1/search/subject"
RESOURCES: Constant = "/access/v1/search/resource"
ACTIONS: Constant = "/access/v1/search/action"
OUTCOME: Constant = "/access/v1/outcome"
DISCOVERY: Constant = "/.well-known/authzen-configuration"
MAX_ITEMS: Constant = 256
_AT_ONCE = 32
_HEADERS = INPUTS | {"authorization", "traceparent", "tracestate"}
_REQUEST_ID = re.compile(r"[\x20-\x7e]{1,256}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
_TASK = re.compile(re.escape(PATH) + r"/([A-Za-z0-9-]{1,80})(/cancel)?")
_STOPS = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}
_MEDIA = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?', re.IGNORECASE)

Handler = Callable[[Asker, JsonObject], Awaitable[HttpResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What answers. `asserts`: whether a peer may name people; `requests` None: exceptions cannot be asked for here."""

    evaluator: Evaluator
    searches: Searches
    outcomes: Outcomes
    requests: Requests | None
    asserts: Callable[[Peer], bool]


class AuthZen:
    """The application. `early`, `refused` and `answer` are for whoever carries HTTP here."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._posts: Mapping[str, Handler] = {
            EVALUATION: self._evaluation, EVALUATIONS: self._evaluations, ACTIONS: self._actions,
            SUBJECTS: self._subjects, OUTCOME: self._outcome,
        }  # fmt: skip

    def route(self, head: HttpHead) -> str:
        """The path that was matched, without a request's id; empty where there is nothing."""
        task = _TASK.fullmatch(head.path)
        if task is not None:
            return f"{PATH}/{{id}}{task[2] or ''}"
        return head.path if head.path in self._posts or head.path in {PATH, RESOURCES, DISCOVERY} else ""

    def early(self, head: HttpHead) -> HttpResponse | None:
        """What can be said without the body."""
        found = self._early(head)
        return None if found is None else _named(head, found)

    def refused(self, head: HttpHead | None, status: int, message: str) -> HttpResponse:
        """A refusal of the transport's."""
        more = (("retry-after", "1"),) if status in {429, 503} else ()
        made = _error(status, message, more)
        return made if head is None else _named(head, made)

    async def answer(self, head: HttpHead, body: bytes) -> HttpResponse:
        """The answer."""
        asker = self._asker(head)
        try:
            return _named(head, await self._routed(asker, head, body))
        except MalformedError as error:
            return _named(head, _answered(await self._parts.evaluator.malformed(asker, str(error))))
        except ProblemError as problem:
            return _named(head, _replied(problem.reply()))

    # -- before the body ---------------------------------------------------------------------------------------------

    def _early(self, head: HttpHead) -> HttpResponse | None:  # noqa: PLR0911 - one line for each thing that can be wrong
        identifiers = head.values("x-request-id")
        if len(identifiers) > 1 or not all(_REQUEST_ID.fullmatch(one) for one in identifiers):
            return _error(400, "X-Request-ID is not 1 to 256 printable characters")
        if head.path == DISCOVERY:
            return self._discovery(head)
        if head.anonymous:
            return _error(401, "a client certificate is needed", (("www-authenticate", "Bearer"),))
        allowed = self._allowed(head.path)
        if allowed is None:
            return _error(404, "there is nothing here")
        if head.method != allowed:
            return _error(405, f"use {allowed}", (("allow", allowed),))
        if head.path == RESOURCES:
            return _error(501, "resources are not searched for: the ids of data subjects are not known here")
        if head.values("content-encoding"):
            return _error(415, "send the body without a content encoding")
        if head.method == "POST" and not _cancels(head.path) and not _is_json(head.values("content-type")):
            return _error(400, "Content-Type is not application/json")
        return None

    def _allowed(self, path: str) -> str | None:
        if path in self._posts or path == RESOURCES:
            return "POST"
        if self._parts.requests is None:
            return None
        task = _TASK.fullmatch(path)
        return "POST" if path == PATH or (task and task[2]) else "GET" if task else None

    def _discovery(self, head: HttpHead) -> HttpResponse:
        if head.method not in {"GET", "HEAD"}:
            return _error(405, "use GET", (("allow", "GET, HEAD"),))
        base = _base(head)
        if not base:
            return _error(400, "the Host header names no host")
        found: dict[str, object] = {
            "policy_decision_point": base, "access_evaluation_endpoint": base + EVALUATION,
            "access_evaluations_endpoint": base + EVALUATIONS, "search_subject_endpoint": base + SUBJECTS,
            "search_action_endpoint": base + ACTIONS, "customhouse_outcome_endpoint": base + OUTCOME,
        }  # fmt: skip
        if self._parts.requests is not None:
            found |= {"access_request_endpoint": base + PATH, "capabilities": [CAPABILITY]}
        return HttpResponse(status=200, body=b"" if head.method == "HEAD" else written(found))

    def _asker(self, head: HttpHead) -> Asker:
        named = [one for one in head.headers if one[0] in _HEADERS]
        return Asker(
            peer=head.peer, metadata=from_caller(named), asserts=self._parts.asserts(head.peer), base=_base(head)
        )  # fmt: skip

    # -- with it -----------------------------------------------------------------------------------------------------

    async def _routed(self, asker: Asker, head: HttpHead, body: bytes) -> HttpResponse:
        requests = self._parts.requests
        task = _TASK.fullmatch(head.path)
        if requests is not None and task is not None:
            if task[2]:
                parse(body or b"{}")
                return _replied(await requests.cancel(asker, task[1]))
            return _replied(await requests.status(asker, task[1]))
        said = parse(body)
        if requests is not None and head.path == PATH:
            keys = head.values("idempotency-key")
            if len(keys) > 1:
                raise MalformedError("Idempotency-Key is given twice")
            return _replied(await requests.submit(asker, said, keys[0] if keys else None))
        return await self._posts[head.path](asker, said)

    async def _evaluation(self, asker: Asker, said: JsonObject) -> HttpResponse:
        return _answered(await self._parts.evaluator.evaluate(asker, question(said)))

    async def _evaluations(self, asker: Asker, said: JsonObject) -> HttpResponse:
        items = said.get("evaluations")
        if items is None or items == []:
            return await self._evaluation(asker, said)
        if not isinstance(items, list):
            raise MalformedError("evaluations is not a list")
        if len(items) > MAX_ITEMS:
            raise MalformedError(f"evaluations has more than {MAX_ITEMS} items")
        stop = _stop(said)
        answers: list[Answer] = []
        # In their order where one of them may end it; otherwise some at once, which then share a write to the disk.
        step = _AT_ONCE if stop is None else 1
        for at in range(0, len(items), step):
            asked = [_item(one, said) for one in items[at : at + step]]
            answers += await self._parts.evaluator.several(asker, asked)
            if stop is not None and answers[-1].decision is stop:
                break
        return HttpResponse(status=200, body=written({"evaluations": [one.document() for one in answers]}))

    async def _actions(self, asker: Asker, said: JsonObject) -> HttpResponse:
        return _found(await self._parts.searches.actions(asker, said))

    async def _subjects(self, asker: Asker, said: JsonObject) -> HttpResponse:
        return _found(await self._parts.searches.subjects(asker, said))

    async def _outcome(self, asker: Asker, said: JsonObject) -> HttpResponse:
        return _found(await self._parts.outcomes.report(asker, said))


def _item(item: Json, defaults: JsonObject) -> Question | MalformedError:
    if not isinstance(item, dict):
        return MalformedError("an item is not an object")
    try:
        return question(item, defaults)
    except MalformedError as error:
        return error


def _stop(said: JsonObject) -> bool | None:
    """The decision that ends a batch; None: none does."""
    options = said.get("options")
    if options is None:
        return None
    if not isinstance(options, dict):
        raise MalformedError("options is not an object")
    semantic = "execute_all"
    if options.get("evaluations_semantic") is not None:
        semantic = text(options, "evaluations_semantic", "options")
    if semantic not in _STOPS:
        raise MalformedError(f"options.evaluations_semantic is none of {', '.join(_STOPS)}")
    return _STOPS[semantic]


def _answered(answer: Answer) -> HttpResponse:
    if answer.status != 200:
        return _failed(answer)
    return HttpResponse(status=200, body=written(answer.document()))


def _found(answer: Answer) -> HttpResponse:
    return HttpResponse(status=200, body=written(answer.context)) if answer.status == 200 else _failed(answer)


def _failed(answer: Answer) -> HttpResponse:
    more = {401: (("www-authenticate", "Bearer"),), 429: (("retry-after", "1"),), 503: (("retry-after", "1"),)}
    return _error(answer.status, answer.message, more.get(answer.status, ()))


def _replied(reply: Reply) -> HttpResponse:
    kind = "application/problem+json" if reply.problem else "application/json"
    return HttpResponse(status=reply.status, body=written(reply.document), content_type=kind, headers=reply.headers)


def _error(status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> HttpResponse:
    return HttpResponse(status=status, body=message.encode() + b"\n", content_type=TEXT, headers=headers)


def _named(head: HttpHead, response: HttpResponse) -> HttpResponse:
    """With the identifier of the request, where that can be repeated."""
    found = head.values("x-request-id")
    if len(found) != 1 or not _REQUEST_ID.fullmatch(found[0]):
        return response
    return HttpResponse(
        status=response.status, body=response.body, content_type=response.content_type,
        headers=(*response.headers, ("x-request-id", found[0])),
    )  # fmt: skip


def _base(head: HttpHead) -> str:
    hosts = head.values("host")
    return f"https://{hosts[0]}" if len(hosts) == 1 and _HOST.fullmatch(hosts[0]) else ""


def _cancels(path: str) -> bool:
    return path.endswith("/cancel")


def _is_json(types: list[str]) -> bool:
    return len(types) == 1 and _MEDIA.fullmatch(types[0].strip()) is not None
