"""Unary calls through the gRPC door, a real client before it and a real service behind it."""

import asyncio
import os

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status
from proxy_parts import RICH, patiently, running, until

from sidecar.enforcement.call import ErrorInfo as Info
from sidecar.enforcement.call import Final, Reply
from sidecar.enforcement.transport import Limits
from sidecar.errors import Code

pytestmark = pytest.mark.integration


async def failure(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("size", [0, 1, 5, 16_384, 70_001])
async def test_bytes_pass_unchanged_both_ways(size):
    body = os.urandom(size)
    async with running() as it:
        assert await it.unary("Echo", body) == body
        assert it.service.seen == [("echo", body)]


async def test_the_enforcement_point_sees_method_metadata_peer_and_deadline():
    async with running() as it:
        metadata = (
            ("authorization", "Bearer t"), ("x-customhouse-purpose", "support"), ("x-customhouse-person", "root"),
            ("x-forwarded-client-cert", "By=me"), ("x-app", "1"), ("x-app", "2"), ("x-app-bin", b"\x00\xff,"),
        )  # fmt: skip
        await it.unary("Meta", metadata=metadata, timeout=90)
        (call,) = it.point.calls
        assert call.method == "/t.S/Meta"
        assert call.metadata == (
            ("authorization", "Bearer t"), ("x-customhouse-purpose", "support"),
            ("x-app", "1"), ("x-app", "2"), ("x-app-bin", b"\x00\xff,"),
        )  # fmt: skip
        assert call.peer.identities == ()
        assert call.peer.address.startswith("127.0.0.1:")
        assert call.door.name == "proxy"
        _, seen, remaining = it.service.seen[0]
        assert (
            30 < remaining <= 90.5
        )  # gRPC rounds a timeout up on the wire, by as much as a tenth of a second below 100
        assert ("authorization", "Bearer t") in seen
        assert ("x-app-bin", b"\x00\xff,") in seen
        assert not [key for key, _ in seen if key in ("x-customhouse-person", "x-forwarded-client-cert")]


async def test_no_deadline_stays_no_deadline():
    async with running() as it:
        await it.unary("Meta")
        assert it.point.calls[0].deadline is None
        assert it.service.seen[0][2] is None


async def test_headers_and_trailers_pass_and_nothing_passes_in_the_sidecars_name():
    async with running() as it:
        call = it.unary("Meta")
        assert await call == b"ok"
        assert tuple(await call.initial_metadata()) == (("x-up", "1"), ("x-up-bin", b"\x00\xff"))
        trailing = tuple(await call.trailing_metadata())
        assert trailing == (("x-end", "2"), ("x-end-bin", b"\xfe\x00"), ("x-customhouse-call-id", "0197-test"))


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_every_status_passes_with_message_details_headers_and_trailers(code):
    async with running() as it:
        error = await failure(it.unary("Fail", b"%d" % list(grpc.StatusCode).index(code)))
        assert error.code() is code
        assert error.details() == "nöpe, 100%\n"
        assert dict(error.trailing_metadata()) == {
            "grpc-status-details-bin": RICH, "x-end": "2", "x-customhouse-call-id": "0197-test",
        }  # fmt: skip
        assert dict(error.initial_metadata()) == {"x-up": "1"}


async def test_unavailable_said_by_the_service_itself_passes_as_it_said_it():
    async with running() as it:
        error = await failure(it.unary("Abort"))
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "mine")


async def test_cancelled_said_by_the_service_is_a_status_not_a_cancellation():
    async with running() as it:
        error = await failure(it.unary("Cancel"))
        assert (error.code(), error.details()) == (grpc.StatusCode.CANCELLED, "by the service")
        assert it.point.ended == []


async def test_an_unreachable_service_is_unavailable_without_telling_where_it_was():
    async with running() as it:
        await it.server.stop(0)
        for _ in range(2):
            error = await failure(it.unary("Echo", b"x", timeout=60))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert error.details() == "the service cannot be reached"


async def test_the_service_is_found_again_soon():
    async with running() as it:
        await it.server.stop(0)
        await failure(it.unary("Echo", b"x", timeout=60))
        server = grpc.aio.server(handlers=[it.service], options=[("grpc.so_reuseport", 0)])
        server.add_insecure_port(it.upstream_address)
        await server.start()
        unavailable = grpc.StatusCode.UNAVAILABLE
        assert await patiently(lambda: it.unary("Echo", b"back", timeout=20), unavailable, 20) == b"back"
        await server.stop(0)


async def test_a_deadline_reaches_the_service_and_comes_back():
    async with running() as it:
        error = await failure(it.unary("Slow", timeout=1))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert it.service.seen[0][0] == "slow"
        assert it.service.seen[0][1] <= 1.01
        await until(lambda: ("slow cancelled",) in it.service.seen)


async def test_a_cancelled_call_is_cancelled_at_the_service_and_known_to_the_enforcement_point():
    async with running() as it:
        call = it.unary("Slow")
        await until(lambda: it.service.seen)
        call.cancel()
        await until(lambda: ("slow cancelled",) in it.service.seen)
        await until(lambda: it.point.ended == ["cancelled"])
        assert it.log.lines == []


async def test_a_refusal_carries_error_info_retry_info_and_preconditions():
    class Refusing:
        def kind(self, method):
            return "unary"

        async def unary(self, call, request):
            return Reply(
                message=None, headers=(("x-customhouse-call-id", "c1"),),
                final=Final(
                    code=Code.FAILED_PRECONDITION, message="refused",
                    error_info=Info(reason="approval_required", metadata={"call_id": "c1"}), retry_after=1.5,
                    preconditions=(("APPROVAL", "c1", "an approval is outstanding"),),
                ),
            )  # fmt: skip

    async with running() as it:
        replace(it, Refusing())
        error = await failure(it.unary("Echo", b"x"))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        trailing = dict(error.trailing_metadata())
        assert trailing["x-customhouse-call-id"] == "c1"
        status = Status.FromString(trailing["grpc-status-details-bin"])
        assert (status.code, status.message) == (9, "refused")
        info, retry, failed = ErrorInfo(), RetryInfo(), PreconditionFailure()
        for any_, detail in zip(status.details, (info, retry, failed), strict=True):
            assert any_.Unpack(detail)
        assert (info.reason, info.domain, dict(info.metadata)) == (
            "approval_required",
            "customhouse",
            {"call_id": "c1"},
        )
        assert retry.retry_delay.ToMilliseconds() == 1500
        assert failed.violations[0].type == "APPROVAL"


def replace(it, point):
    """Put another enforcement point behind the open door."""
    for name in ("kind", "unary", "stream"):
        if hasattr(point, name):
            setattr(it.point, name, getattr(point, name))


@pytest.mark.parametrize("name", ["Echo", "Bidi"])
@pytest.mark.parametrize(
    "raised", [RuntimeError("secret of ann"), KeyError("ann"), asyncio.CancelledError(), MemoryError()]
)
async def test_an_unexpected_failure_is_unavailable_and_says_nothing(name, raised):
    class Broken:
        async def unary(self, call, request):
            raise raised

        async def stream(self, call, requests, answer):
            raise raised

    async with running() as it:
        replace(it, Broken())
        call = it.unary("Echo", b"x", timeout=60) if name == "Echo" else it.stream(name, timeout=60)
        error = await failure(call if name == "Echo" else call.read())
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details() == "the sidecar could not handle the call"
        ((event, details),) = it.log.lines
        assert "unexpected failure" in event
        assert details["failure"] == type(raised).__name__
        assert "ann" not in repr(details)
        assert it.service.seen == []


async def test_a_failing_kind_still_lets_the_enforcement_point_refuse():
    class Broken:
        def kind(self, method):
            raise RuntimeError("index gone")

        async def stream(self, call, requests, answer):
            return Final(code=Code.UNIMPLEMENTED, message="unknown")

    async with running() as it:
        replace(it, Broken())
        error = await failure(it.unary("Echo", b"x", timeout=60))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert it.log.lines[0][1]["failure"] == "RuntimeError"


async def test_an_ok_answer_without_a_message_is_refused():
    class Silent:
        async def unary(self, call, request):
            return Reply(message=None, headers=(), final=Final(code=Code.OK))

    async with running() as it:
        replace(it, Silent())
        error = await failure(it.unary("Echo", b"x", timeout=60))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("over", [False, True])
async def test_the_message_limit_holds_both_ways(over):
    async with running(limits=Limits(message=100_000)) as it:
        size = 100_000 + over
        if not over:
            assert await it.unary("Echo", bytes(size)) == bytes(size)
            return
        error = await failure(it.unary("Echo", bytes(size)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert it.point.calls == []
        error = await failure(it.unary("Large", b"%d" % size))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details() == "the service's answer is larger than the sidecar passes on"


async def test_the_default_message_limit_is_four_mebibytes():
    async with running() as it:
        body = os.urandom(4 << 20)
        assert await it.unary("Echo", body) == body
        assert (await failure(it.unary("Echo", body + b"x"))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_too_much_metadata_is_refused_by_the_transport_and_others_go_on():
    async with running() as it:
        assert await it.unary("Echo", b"x", metadata=(("x-a", "a" * 12_000),)) == b"x"
        error = await failure(it.unary("Echo", b"x", metadata=(("x-a", "a" * 20_000),)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        many = tuple((f"x-{n}", "v") for n in range(2000))
        assert (await failure(it.unary("Echo", b"x", metadata=many))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(it.point.calls) == 1
        assert await it.unary("Echo", b"y") == b"y"


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_compressed_request_is_read_and_sent_on_in_the_clear(compression):
    async with running() as it:
        body = b"a" * 50_000
        assert await it.unary("Echo", body, compression=compression) == body
        assert it.service.seen == [("echo", body)]


async def test_a_small_message_that_inflates_beyond_the_limit_is_refused():
    async with running(limits=Limits(message=100_000)) as it:
        error = await failure(it.unary("Echo", bytes(5_000_000), compression=grpc.Compression.Gzip))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert it.point.calls == []


async def test_metadata_that_cannot_be_sent_on_is_a_refusal_not_a_crash():
    class Adding:
        async def unary(self, call, request):
            return await it.upstream.unary(call.method, request, (("x-customhouse-person", "Zoë"),), None)

    async with running() as it:
        replace(it, Adding())
        error = await failure(it.unary("Echo", b"x"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert it.service.seen == []
