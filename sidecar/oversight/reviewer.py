"""How a reviewer asks a store: over mutual TLS, believing nothing that does not come with a proof."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.api.v1 import oversight_pb2_grpc
from sidecar.errors import ConfigurationError
from sidecar.tlog.errors import TlogError
from sidecar.tlog.trust import Trust

_PAGE = 1000
_SECONDS = 30.0
_ALL = 1 << 62
_BEHIND_SECONDS, _LOOK_SECONDS = 30.0, 0.25
"""How long a search waits for the store's index to reach what was published when it began, and how often it looks."""
_REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE)


class Reviewer:
    """A connection to the store's query listener."""

    def __init__(self, store: str, ca: Path, cert: Path, key: Path) -> None:
        try:
            credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key.read_bytes(), cert.read_bytes())
        except OSError as error:
            raise ConfigurationError(
                f"cannot be read: {error.strerror}", where=str(error.filename), fix="Give --ca, --cert and --key."
            ) from None
        self._store = store
        options = [("grpc.max_receive_message_length", 64 << 20)]
        self._channel = grpc.secure_channel(store, credentials, options)
        self._stub = oversight_pb2_grpc.QueryStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._channel.close()
        if isinstance(error, grpc.RpcError):
            code = error.code()
            said = f"{code.name}: {error.details()}"
            if code in _REFUSED:
                raise ConfigurationError(f"the store refuses the question: {said}", where=self._store) from None
            raise ConfigurationError(
                f"the store does not answer: {said}", where=self._store,
                fix="Check --store, and that the certificate's identity is among the store's reviewers.",
            ) from None  # fmt: skip

    def search(self, asked: Mapping[str, str], limit: int) -> Iterator[pb.StoredRecord]:
        """Matching records, in the order of the log; at most `limit`, or all for 0.

        Everything published when it began is searched: where the store's index is behind, this waits for it.
        ConfigurationError when it stays behind, which is said after what was found, never left out in silence.
        """

        def ask(cursor: str, most: int) -> pb.SearchResponse:
            request = pb.SearchRequest(**asked, cursor=cursor, limit=most)
            answer: pb.SearchResponse = self._stub.Search(request, timeout=_SECONDS)
            return answer

        yield from searched(ask, limit, self._store, time.sleep)

    def prove(self, index: int) -> tuple[pb.StoredRecord, bytes]:
        """One record and its tlog-proof."""
        answer = self._stub.Prove(pb.ProveRequest(index=index), timeout=_SECONDS)
        return answer.record, answer.proof.encode()

    def checkpoint(self) -> bytes:
        """The latest published checkpoint."""
        return bytes(self._stub.GetCheckpoint(pb.GetCheckpointRequest(), timeout=_SECONDS).checkpoint)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Hashes that prove the tree of `new` to continue that of `old`."""
        request = pb.ProveConsistencyRequest(old_size=old, new_size=new)
        return list(self._stub.ProveConsistency(request, timeout=_SECONDS).hashes)

    def completeness(self) -> pb.GetCompletenessResponse:
        """What is missing, doubled or silent."""
        answer: pb.GetCompletenessResponse = self._stub.GetCompleteness(pb.GetCompletenessRequest(), timeout=_SECONDS)
        return answer


def searched(
    ask: Callable[[str, int], pb.SearchResponse], limit: int, store: str, pause: Callable[[float], object]
) -> Iterator[pb.StoredRecord]:
    """The records of all pages, asked for by `ask(cursor, most)`, of all that was published at the first question.

    ConfigurationError when the store's index has not come so far after half a minute of asking.
    """
    cursor, left, waited, size = "", limit or _ALL, 0.0, None
    while left > 0:
        page = ask(cursor, min(left, _PAGE))
        size = page.published if size is None else size
        yield from page.records
        left -= len(page.records)
        if page.next_cursor:
            cursor = page.next_cursor
            continue
        if page.searched_to >= size:
            return
        if waited >= _BEHIND_SECONDS:
            raise ConfigurationError(
                f"the store has searched {page.searched_to} of {size} published records: there may be more",
                where=store, fix="Ask again in a moment; if it stays so, see the store's log about its index.",
            )  # fmt: skip
        cursor = str(page.records[-1].index) if page.records else cursor
        pause(_LOOK_SECONDS)
        waited += _LOOK_SECONDS


def read_trust(path: Path) -> Trust:
    """The trust file. ConfigurationError when it is none."""
    try:
        return Trust.parse(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=str(path), fix="Give --trust FILE."
        ) from None
    except TlogError as error:
        raise ConfigurationError(
            f"is no trust file: {error}", where=str(path), fix="It holds `log <vkey>` and `quorum none|<name>` lines."
        ) from None
