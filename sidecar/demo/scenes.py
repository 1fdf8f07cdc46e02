"""What is tried, and what must come of it."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message

from sidecar.demo.client import Got, ended
from sidecar.demo.papers import GRANT_SECONDS
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.demo.stage import TICKET, Stage, said, until

Played = tuple[str, Got]
"""What came of it, in the words of `Scene.expected`, and the call."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One thing tried. As expected when `play` says exactly `expected`."""

    name: str
    expected: str
    play: Callable[[Stage], Played]
    past_the_sidecar: bool = False
    """It never meets a sidecar, so it has no call id and no record."""


def _get(
    stage: Stage, token: str | None, user: int, *, via: tuple[str, str] = ("console", "proxy"), country: str = "",
    **claims: str | None,
) -> Got:  # fmt: skip
    """GetProfile; `via` names the certificate that calls and the port that is called."""
    request = pb.GetProfileRequest(user_id=user, country=country)
    return stage.client(*via).call("GetProfile", request, stage.metadata(token, **claims))


def _plain(
    token: str | None, who: Callable[[Stage], int], certificate: str = "console", *, country: str = "",
    **claims: str | None,
) -> Callable[[Stage], Played]:  # fmt: skip
    def play(stage: Stage) -> Played:
        got = _get(stage, token, who(stage), via=(certificate, "proxy"), country=country, **claims)
        return said(got), got

    return play


def _us(stage: Stage) -> int:
    return stage.world.cast.us


def _german(stage: Stage) -> int:
    return stage.world.cast.german


def _redacted(stage: Stage) -> Played:
    got = _get(stage, "amy", stage.world.cast.us)
    if not isinstance(got.messages[0] if got.messages else None, pb.Profile):
        return said(got), got
    profile = got.messages[0]
    cleared = not profile.government_id and not profile.last_payment.amount
    masked = profile.email.startswith("*") and profile.email.endswith("mple")
    kept = bool(profile.handle and profile.city)
    what = [word for word, holds in (("cleared", cleared), ("masked", masked), ("kept", kept)) if holds]
    return f"{said(got)}: {', '.join(what)}", got


def _mixed(stage: Stage) -> Played:
    asked = 60
    token = str(stage.world.cast.german - 1)
    got = stage.client("console").call(
        "ListProfiles", pb.ListProfilesRequest(page_size=asked, page_token=token), stage.metadata("niall")
    )
    if not got.messages:
        return said(got), got
    countries = {profile.country for profile in got.messages[0].profiles}
    left = len(got.messages[0].profiles)
    only = "no US record" if left and not countries & {"US", "PR", "ZZ"} else f"{sorted(countries)}"
    return f"{said(got)}: {only}, {'some' if left < asked else 'none'} dropped", got


def _messages(stage: Stage) -> Played:
    got = stage.client("console").call(
        "ListMessages", pb.ListMessagesRequest(user_id=stage.world.cast.us), stage.metadata("amy")
    )
    return f"{said(got)}: {'messages' if got.messages else 'nothing'}", got


def _import(stage: Stage) -> Played:
    contacts = [pb.Contact(user_id=user, name="A Friend", phone="+15550100") for user in (_us(stage), _german(stage))]
    got = stage.client("console").call("ImportContacts", iter(contacts), stage.metadata("amy"))
    count = got.messages[0].imported if got.messages else 0
    return f"{said(got)}: {count} imported", got


def _sync(stage: Stage) -> Played:
    """Niall follows a German user, then names a US one in the same stream."""
    asked = [pb.SyncRequest(user_id=stage.world.cast.german), pb.SyncRequest(user_id=stage.world.cast.us)]
    got = stage.client("console").call("Sync", _slowly(asked), stage.metadata("niall"))
    return f"{len(got.messages)} answer, then {said(got)}", got


def _slowly(messages: Iterable[Message], pause: float = 0.3) -> Iterator[Message]:
    for message in messages:
        yield message
        time.sleep(pause)


def _direct(stage: Stage) -> Played:
    """A caller that knows where the service is, and a doctor that tries the same."""
    got = _get(stage, "amy", stage.world.cast.us, via=("console", "upstream"))
    doctor = stage.doctor()
    found = "doctor agrees" if doctor.returncode == 0 else f"doctor: {doctor.stdout.strip()[-120:]}"
    return f"{said(got)}, {found}", got


def _abroad(stage: Stage) -> Played:
    got = _get(stage, "amy", stage.world.cast.us, via=("console", "abroad"))
    return said(got), got


def _cut(stage: Stage) -> Played:
    """Lou follows a user; Lou leaves the company; the stream ends."""
    more = threading.Event()

    def requests() -> Iterator[Message]:
        yield pb.SyncRequest(user_id=stage.world.cast.us_too)
        more.wait(15.0)

    first: pb.SyncResponse | None = None
    with stage.client("console").open("Sync", requests(), stage.metadata("lou")) as call:
        try:
            first = next(call)
            stage.rebuild_directory(without="lou")
            for _ in call:
                pass
        except (grpc.RpcError, StopIteration):
            pass  # how it ended is asked below
        finally:
            more.set()
    got = ended(call)
    return f"answer, then {said(got)}" if first is not None and first.HasField("profile") else said(got), got


def _store_down(stage: Stage) -> Played:
    """The store is killed; calls go on, their records wait on the sidecar's disk; it comes back."""
    stage.processes.kill("store")
    got = _get(stage, "amy", stage.world.cast.us)
    stage.start_store()
    return f"{said(got)} while it is down", got


def _claimed(stage: Stage) -> Got:
    return _get(stage, "ed", stage.world.cast.us, purpose="security_incident", ticket="SEC-42", exception="EX-7")


def _exception(stage: Stage) -> Played:
    """Two approvers sign; the sidecar takes the grant up while it runs."""
    stage.world.grant_expires = stage.world.desk.grant("EX-7", "ed", stage.clock())
    until(lambda: _claimed(stage).status == "OK", GRANT_SECONDS / 2)
    got = _claimed(stage)
    return said(got), got


def _exception_over(stage: Stage) -> Played:
    """The same exception, once its time has passed."""
    until(lambda: stage.clock() > stage.world.grant_expires + 0.5, GRANT_SECONDS + 5.0)
    got = _claimed(stage)
    return said(got), got


def _covered(stage: Stage, *, exception: str | None = None) -> Got:
    ticket = TICKET if exception is None else "SEC-42"
    return _get(stage, "mei", stage.world.cast.us, ticket=ticket, exception=exception)


def _covered_exception(stage: Stage) -> Played:
    """Two approvers lift the operator's own rule for a while. They cannot lift the law."""
    ends = stage.world.desk.grant("EX-8", "mei", stage.clock())
    until(
        lambda: _covered(stage, exception="EX-8").reason != "exception_invalid" or stage.clock() > ends, GRANT_SECONDS
    )
    got = _covered(stage, exception="EX-8")
    return said(got), got


def _licensed(stage: Stage) -> Played:
    """Counsel signs that a specific licence covers the vendor's group; the sidecar takes it up, the ledger counts."""
    stage.world.desk.license("lotus", stage.clock())
    until(lambda: _covered(stage).status == "OK", 10.0)
    got = _covered(stage)
    until(lambda: any(stage.exposure("lotus").values()), 5.0)
    persons = max(stage.exposure("lotus").values(), default=0)
    return f"{said(got)}, {persons} person counted", got


def _undescribed(stage: Stage) -> Played:
    invoke: grpc.UnaryUnaryMultiCallable[bytes, bytes] = stage.client("console").channel.unary_unary(
        "/sidecar.demo.profiles.v1.Profiles/DumpEverything"
    )
    try:
        invoke(b"", metadata=tuple(stage.metadata("amy")), timeout=5)
    except grpc.RpcError as error:
        got = ended(error)
        return said(got), got
    return "OK", Got("OK")


_DENIED = "PERMISSION_DENIED"
_NOBODY = "UNAUTHENTICATED unidentified_person"
SYNC_TOO_FAR = "a stream both ways that goes too far"

SCENES: tuple[Scene, ...] = (
    Scene("US personnel reads a US user", "OK", _plain("amy", _us)),
    Scene("personnel abroad reads a US user", f"{_DENIED} not_us_personnel", _plain("niall", _us)),
    Scene("the same person reads a German user", "OK", _plain("niall", _german)),
    Scene("the same person lists all users", "OK: no US record, some dropped", _mixed),
    Scene("fields beyond the task are withheld", "OK: cleared, masked, kept", _redacted),
    Scene("an expired token", _NOBODY, _plain("amy-expired", _us)),
    Scene("a forged token", _NOBODY, _plain("amy-forged", _us)),
    Scene("no token", _NOBODY, _plain(None, _us)),
    Scene("a stranger with a good token", f"{_DENIED} unidentified_person", _plain("stranger", _us)),
    Scene("somebody whose vetting has lapsed", f"{_DENIED} personnel_ineligible", _plain("vic", _us)),
    Scene("no purpose", f"{_DENIED} purpose_not_allowed", _plain("amy", _us, purpose=None)),
    Scene("no ticket for contact data", f"{_DENIED} ticket_missing", _plain("amy", _us, ticket=None)),
    Scene("a US service acting for nobody", "OK",
          _plain(None, _us, "ranker", purpose=None, ticket=None)),
    Scene("a service abroad acting for nobody", f"{_DENIED} class_not_allowed",
          _plain(None, _us, "exporter", purpose=None, ticket=None)),
    Scene("a user reads their own record", "OK", _plain("user-us", _us, "web", purpose=None, ticket=None)),
    Scene("a user reads somebody else's", f"{_DENIED} not_own_record",
          _plain("user-de", _us, "web", purpose=None, ticket=None)),
    Scene("an exception, approved by two", "OK", _exception),
    Scene("a caller says the US user lives in Germany", f"{_DENIED} not_us_personnel",
          _plain("niall", _us, country="DE")),
    Scene("messages, a stream from the service", "OK: messages", _messages),
    Scene("contacts, a stream to the service", "OK: 2 imported", _import),
    Scene(SYNC_TOO_FAR, f"1 answer, then {_DENIED} not_us_personnel", _sync),
    Scene("vetted, but for a vendor half owned in China", f"{_DENIED} dsp_bulk",
          _plain("mei", _us)),
    Scene("an exception does not lift that", f"{_DENIED} dsp_bulk", _covered_exception),
    Scene("a licence does, and the ledger counts", "OK, 1 person counted", _licensed),
    Scene("a method nobody has described", "UNIMPLEMENTED undescribed_method", _undescribed),
    Scene("a direct call past the sidecar", "UNAVAILABLE, doctor agrees", _direct, past_the_sidecar=True),
    Scene("the data is served from Frankfurt", f"{_DENIED} storage_not_allowed", _abroad),
    Scene("somebody leaves while a stream is open", f"answer, then {_DENIED} unidentified_person", _cut),
    Scene("the store is killed and comes back", "OK while it is down", _store_down),
    Scene("the exception, when its time has passed", f"{_DENIED} exception_invalid", _exception_over),
)  # fmt: skip
