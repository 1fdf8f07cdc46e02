"""Stage 3, describe: what a call reaches, and the class of every data subject it concerns.

* A method that nobody described is refused; one that the API does not have is not there.
* A country in a request is no evidence. In an answer the more sensitive of it and the index counts; it clears an
  unknown subject only where its annotation says `authoritative`. PR GU VI AS MP UM are in the United States.
* While the index is stale every subject is unknown, unless an answer says that it is in the United States.
* Data of somebody who is not named is data of an unknown subject.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from sidecar.attributes import annotations, coherence
from sidecar.attributes.countries import country_class
from sidecar.attributes.datasets import NOTHING_KNOWN, Datasets
from sidecar.attributes.described import Described, computed
from sidecar.attributes.descriptors import Descriptors
from sidecar.attributes.messages import MessagePlan, ParsedMessage, Seen, named
from sidecar.attributes.overlay import Overlay
from sidecar.attributes.plans import Plans
from sidecar.attributes.presence import inventory
from sidecar.attributes.reach import ESCAPED, Reach, method_reach, ordered_categories, ordered_classes, reach_of
from sidecar.attributes.report import Report, Row, summary
from sidecar.attributes.words import IMPERSONAL, MethodWords, SubjectMode
from sidecar.errors import Code, DescribeError, InterceptError
from sidecar.vocabulary import Action, Place, ReasonCode, SubjectClass, SubjectCounts

SubjectKey = tuple[str, str]
"""(kind, id) of a data subject."""


class SubjectIndex(Protocol):
    """Who is a US data subject."""

    @property
    def revision(self) -> str:
        """Digest of the index in force."""

    def classify(self, kind: str, id: str) -> SubjectClass:  # noqa: A002 - the word of the interface
        """The class of an id; `unknown` when the index has never heard of it."""

    def fresh(self, now: float) -> bool:
        """Whether the index is young enough to be believed at `now` (UTC, unix seconds)."""


class Classified(msgspec.Struct, frozen=True, kw_only=True):
    """The subjects of one message.

    `counts` goes into the input document. `classes` holds each named subject's class. `nobody`: the message holds data
    of somebody it does not name (counted as unknown). `reached`: what it holds beyond the method's own description,
    because of unknown fields or the contents of an Any; None when nothing.
    """

    counts: SubjectCounts
    classes: dict[SubjectKey, SubjectClass]
    nobody: bool = False
    reached: Reach | None = None


class Classifier:
    """Puts data subjects into classes. Holds no call's state."""

    __slots__ = ("index",)

    def __init__(self, index: SubjectIndex) -> None:
        self.index = index

    def classify(
        self, seen: Sequence[Seen], own: SubjectKey | None, now: float, *, unnamed: int = 0, pending: bool = False,
        reached: Reach | None = None,
    ) -> Classified:  # fmt: skip
        """The classes and counts of these subjects, and of `unnamed` more that nobody names.

        `own` is the (kind, id) of the caller when a data subject calls; they count in their class as well.
        """
        index = self.index
        fresh = index.fresh(now)
        classes: dict[SubjectKey, SubjectClass] = {}
        us = non_us = 0
        for one in seen:
            class_: SubjectClass = index.classify(one.kind, one.id) if fresh else "unknown"
            if one.country is not None:
                class_ = with_evidence(class_, one.country, clears=one.authoritative and fresh)
            classes[one.kind, one.id] = class_
            if class_ == "us":
                us += 1
            elif class_ == "non_us":
                non_us += 1
        counts = SubjectCounts(
            us=us, non_us=non_us, unknown=len(classes) - us - non_us + unnamed,
            own=1 if own is not None and own in classes else 0, pending=pending,
        )  # fmt: skip
        return Classified(counts=counts, classes=classes, nobody=unnamed > 0, reached=reached)


def with_evidence(class_: SubjectClass, country: str, *, clears: bool) -> SubjectClass:
    """The more sensitive of what the index and the answer say."""
    said = country_class(country)
    if said == "us" or class_ == "us":
        return "us"
    if said == "unknown":
        return "unknown"
    return said if clears else class_


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MethodDescription(Described):
    """What calling one method means, worked out once.

    `path` is "/package.Service/Method"; `action` goes into the input document as it is. `categories`, `classes` and
    `listed_identifiers` are the union of everything reachable: in the answer for read, list and search; in request and
    answer for anything else; and what the method's own annotation names. A method that concerns subjects and reaches
    nothing described reaches `unclassified` data.
    """

    path: str
    client_streaming: bool
    server_streaming: bool
    subject_mode: SubjectMode
    request: MessagePlan
    answer: MessagePlan
    subject_fields: tuple[str, ...]

    @property
    def unary(self) -> bool:
        """Neither side streams."""
        return not (self.client_streaming or self.server_streaming)

    def request_subjects(
        self, classifier: Classifier, parsed: ParsedMessage, own: SubjectKey | None, now: float
    ) -> Classified:
        """Whom a request concerns. A request that should name somebody and names nobody concerns one unknown."""
        seen: Sequence[Seen] = parsed.subjects
        mode, unnamed = self.subject_mode, parsed.unnamed
        if mode == "caller" and own is not None and own not in {(one.kind, one.id) for one in seen}:
            seen = (*seen, Seen(*own))
        if not seen and mode in ("request_field", "caller"):
            unnamed = max(unnamed, 1)
        reached = self._beyond(parsed) if parsed.unclassified or parsed.payloads else None
        return classifier.classify(seen, own, now, unnamed=unnamed, pending=mode == "answer", reached=reached)

    def answer_subjects(
        self, classifier: Classifier, parsed: ParsedMessage, own: SubjectKey | None, now: float
    ) -> Classified:
        """Whom an answer concerns, besides those the request named.

        Where the answer is what names the subjects, personal data that stands outside any named subject concerns one
        unknown.
        """
        unnamed = parsed.unnamed
        if self.subject_mode == "answer" and not unnamed and self._loose(parsed):
            unnamed = 1
        reached = self._beyond(parsed) if parsed.unclassified or parsed.payloads else None
        return classifier.classify(parsed.subjects, own, now, unnamed=unnamed, reached=reached)

    def _beyond(self, parsed: ParsedMessage) -> Reach | None:
        found = ESCAPED if parsed.unclassified else Reach()
        for plan in parsed.payloads:
            found |= reach_of(plan)
        return None if (self.reach | found) == self.reach else found

    def impersonal(self, parsed: ParsedMessage) -> bool:
        """Whether an answer that names nobody holds nothing about anybody: it is empty, a count, a page token."""
        return not self._loose(parsed)

    def _loose(self, parsed: ParsedMessage) -> bool:
        if parsed.reading is not None:
            return parsed.reading.personal
        plan = parsed.plan
        if plan.governed <= IMPERSONAL and not plan.leads:
            return False
        if plan.names and named(plan, parsed.message):
            return False
        _, loose = inventory(parsed.source, parsed.message)
        return not loose <= IMPERSONAL


class Describer:
    """Knows every method of the API, described or not."""

    __slots__ = ("_known", "_methods", "_unguarded", "descriptors", "plans", "words")

    def __init__(
        self, descriptors: Descriptors, *, overlay: Overlay | None = None, unguarded: Iterable[str] = (),
        datasets: Datasets | None = None, location: Place | None = None,
    ) -> None:  # fmt: skip
        """Describe an API. ConfigurationError for anything said about it that cannot hold.

        `unguarded`: "package.Service/Method" or "package.Service/*". `location`: where the upstream keeps its data.
        """
        said = annotations.read(descriptors)
        words = said if overlay is None else overlay.over(said, descriptors)
        self._unguarded = coherence.unguarded(unguarded, words)
        coherence.check(words, descriptors)
        self.descriptors, self.words = descriptors, words
        self.plans = Plans(descriptors, words)
        self._known = frozenset(f"/{key}" for key in descriptors.methods)
        self._methods = {
            f"/{key}": self._describe(key, one, datasets, location or Place()) for key, one in words.methods.items()
        }

    def __iter__(self) -> Iterator[MethodDescription]:
        return iter(self._methods.values())

    def method(self, path: str) -> MethodDescription:
        """The description of "/package.Service/Method".

        InterceptError UNIMPLEMENTED when the API has no such method; DescribeError `undescribed_method` when it has,
        and nothing says what it reaches.
        """
        found = self._methods.get(path)
        if found is not None:
            return found
        if path not in self._known:
            raise InterceptError(
                "unknown method", code=Code.UNIMPLEMENTED,
                operator=f"{path[:200]} is not in {self.descriptors.where}. If the service has it, renew the descriptors.",
            )  # fmt: skip
        raise DescribeError(
            "nothing says what this method reaches", reason=ReasonCode.UNDESCRIBED_METHOD,
            operator=f"{path} has no `access` annotation. Annotate it, or describe it in the overlay.",
        )  # fmt: skip

    def kind(self, path: str) -> Literal["unary", "stream"] | None:
        """`unary` for a described unary method, `stream` for any other known or unguarded one, None for unknown."""
        found = self._methods.get(path)
        if found is not None:
            return "unary" if found.unary else "stream"
        return "stream" if path in self._known or self.unguarded(path) else None

    def unguarded(self, path: str) -> bool:
        """Whether calls of this method pass without a decision."""
        service, _, method = path.removeprefix("/").rpartition("/")
        return (service, method) in self._unguarded or (service, "*") in self._unguarded

    def report(self) -> Report:
        """What every method of the API reaches, and what is left to say."""
        rows = [_row(one) for one in self]
        rows += [
            Row(method=path[1:], status="unguarded" if self.unguarded(path) else "undescribed")
            for path in self._known - self._methods.keys()
        ]
        return summary(rows)

    def _describe(self, key: str, said: MethodWords, datasets: Datasets | None, location: Place) -> MethodDescription:
        method = self.descriptors.methods[key]
        service = method.containing_service.full_name
        about: Literal["named", "nobody"] = "named" if said.subject in ("request_field", "caller") else "nobody"
        asked = reach_of(self.plans.of(method.input_type.full_name))
        given = reach_of(self.plans.of(method.output_type.full_name))
        coherence.names_subjects(said, asked, given, self.descriptors.place(key))
        reach = (given if said.action in ("read", "list", "search") else asked | given) | method_reach(said.categories)
        if said.subject != "none" and not reach.categories:
            reach |= ESCAPED
        dataset = NOTHING_KNOWN if datasets is None else datasets.of(service, said.resource)
        return MethodDescription(
            path=f"/{key}",
            action=Action(name=said.action, service=service, method=method.name),
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
            resource_type=said.resource,
            subject_mode=said.subject,
            request=MessagePlan(
                self.plans, method.input_type.full_name, direction="request", about=about, described=reach.categories
            ),
            answer=MessagePlan(
                self.plans, method.output_type.full_name, direction="answer", about=about, described=reach.categories
            ),
            reach=reach,
            subject_fields=(asked | given).subjects,
            dataset=dataset,
            location=location,
            categories=ordered_categories(reach.categories),
            classes=ordered_classes(reach.classes),
            listed_identifiers=reach.letters,
            computed=computed(reach, dataset),
        )


def _row(one: MethodDescription) -> Row:
    return Row(
        method=one.path[1:],
        status="guarded",
        action=one.action.name or "",
        resource=one.resource_type,
        subject=one.subject_mode,
        categories=one.categories,
        classes=one.classes,
        listed_identifiers=one.listed_identifiers,
        computed=one.computed,
        subject_fields=one.subject_fields,
        unannotated=one.reach.unannotated,
        opaque=one.reach.opaque,
        dataset=one.dataset.dataset.id,
    )
