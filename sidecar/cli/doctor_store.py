"""What `sidecar doctor` asks the oversight store and the ledger: as the sidecar itself would, with its certificates."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import grpc

from sidecar.api.v1 import ledger_pb2, oversight_pb2
from sidecar.cli.findings import Finding, NotHeldError, tried
from sidecar.enforcement.receipts import ReceiptError, ReceiptVerifier
from sidecar.main import keys
from sidecar.main.given import clock
from sidecar.settings.sidecar import ClientTls, SidecarSettings

_SECONDS = 3.0
_SEALING_KEY = "/sidecar.api.v1.KeyService/GetSealingKey"
_PEEK = "/sidecar.api.v1.Ledger/Peek"
TIME = "x-customhouse-time"
"""The store's clock, in the metadata of the key service's answers (RFC 3339)."""
_NOBODY = "customhouse-doctor"
"""A counterparty group that nobody is of."""
_APART = 1.0

Metadata = Sequence[tuple[str, str | bytes]]


def examined(settings: SidecarSettings) -> Iterator[Finding]:
    """Try everything."""
    answers: list[tuple[bytes, Metadata, float]] = []
    tls = settings.oversight.tls

    def ask() -> str:
        before = clock()
        request = oversight_pb2.GetSealingKeyRequest().SerializeToString()
        data, metadata = _asked(settings.oversight.keys, tls, _SEALING_KEY, request, "oversight")
        answers.append((data, metadata, (before + clock()) / 2))
        return f"{settings.oversight.keys} knows this producer's certificate"

    yield tried("store answers the sidecar", ask)
    for data, metadata, at in answers:
        yield tried("store's sealing key", lambda data=data: _sealing(settings, data))  # type: ignore[misc]
        yield tried("clock", lambda metadata=metadata, at=at: _clock(settings, metadata, at))  # type: ignore[misc]
    yield tried("store's log key", lambda: _log_key(settings))
    ledger = settings.ledger
    if ledger is not None:
        request = ledger_pb2.PeekRequest(group=_NOBODY).SerializeToString()
        yield tried("ledger", lambda: _ledger(ledger.address, ledger.tls, request))


def _asked(address: str, tls: ClientTls, method: str, request: bytes, key: str) -> tuple[bytes, Metadata]:
    pair = (None, None) if tls.cert is None or tls.key is None else (tls.key.read_bytes(), tls.cert.read_bytes())
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), *pair)
    options = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
    with grpc.secure_channel(address, credentials, options) as channel:
        try:
            stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
            answer, call = stub.with_call(request, timeout=_SECONDS)
        except grpc.RpcError as error:
            said = f"{error.code().name}: {error.details() or ''}".rstrip(": ")
            known = error.code() is grpc.StatusCode.UNAUTHENTICATED
            raise NotHeldError(
                said, where=address,
                fix=f"Register this sidecar's certificate there, or correct {key}.tls." if known
                else f"Start what listens there, or correct the address and {key}.tls.",
            ) from None  # fmt: skip
        return answer, tuple(call.initial_metadata() or ())


def _sealing(settings: SidecarSettings, data: bytes) -> str:
    found = oversight_pb2.GetSealingKeyResponse.FromString(data).public_key
    if found != keys.seal_key(settings):
        raise NotHeldError(
            "the store's key is another than the one pinned here", where=str(settings.oversight.seal_key),
            fix="Ask the store's operator, by another way than this connection, which of them is right.",
        )  # fmt: skip
    return f"is the one in {settings.oversight.seal_key}"


def _clock(settings: SidecarSettings, metadata: Metadata, at: float) -> str:
    told = next((str(value) for name, value in metadata if name == TIME), None)
    if told is None:
        raise NotHeldError("the store does not tell its time", where=settings.oversight.keys,
                           fix="Bring the store to the sidecar's release.", warns=True)  # fmt: skip
    apart = datetime.fromisoformat(told).timestamp() - at
    said = f"the store's is {abs(apart):.1f} s {'ahead' if apart > 0 else 'behind'}"
    most = settings.identity.leeway
    fix = "Let both hosts follow a time service (NTP)."
    if abs(apart) > most:
        raise NotHeldError(f"{said}: more than identity.leeway ({most:.0f} s)", where="clock", fix=fix)
    if abs(apart) > _APART:
        raise NotHeldError(said, where="clock", fix=fix, warns=True)
    return said


def _log_key(settings: SidecarSettings) -> str:
    """The last checkpoint that receipts brought has to carry the pinned log key's signature."""
    receipts = ReceiptVerifier(keys.trust(settings))
    notes = sorted(settings.record.spool.glob("*/checkpoint"))
    for note in notes:
        try:
            receipts.resume(note.read_bytes())
        except ReceiptError as error:
            raise NotHeldError(
                str(error), where=str(note),
                fix="If the log's key was changed on purpose, correct oversight.trust; if not, do not believe the store.",
            ) from None  # fmt: skip
    return "has signed the last checkpoint received" if notes else "is pinned; no checkpoint has been received yet"


def _ledger(address: str, tls: ClientTls, request: bytes) -> str:
    _asked(address, tls, _PEEK, request, "ledger")
    return f"{address} answers this sidecar"
