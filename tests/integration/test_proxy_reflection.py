"""Descriptors from an upstream's reflection service, and reflection through the door as grpcurl does it."""

import asyncio
import os
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from proxy_parts import running

from sidecar.enforcement import reflection as fetching
from sidecar.enforcement.reflection import METHODS, fetch_descriptors
from sidecar.enforcement.transport import Limits
from sidecar.errors import Code, DescribeError

pytestmark = pytest.mark.integration
HEALTH, REFLECTION = "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"


class Scripted(grpc.GenericRpcHandler):
    """A reflection service that answers as told."""

    def __init__(self, answer, methods=METHODS):
        async def on(requests, context):
            async for request in requests:
                reply = answer(ServerReflectionRequest.FromString(request))
                await context.write(await reply if asyncio.iscoroutine(reply) else reply)

        self._methods, self._handler = methods, grpc.stream_stream_rpc_method_handler(on)
        self.asked = []

    def service(self, details):
        self.asked.append(details.method)
        return self._handler if details.method in self._methods else None


@asynccontextmanager
async def service(*handlers, reflect=False):
    server = grpc.aio.server(handlers=handlers)
    if reflect:
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
        reflection.enable_server_reflection([HEALTH, REFLECTION], server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    channel = grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
    try:
        yield channel, address
    finally:
        await channel.close()
        await server.stop(0)


def files(data):
    return {file.name: file for file in FileDescriptorSet.FromString(data).file}


async def test_a_real_service_describes_itself_by_v1alpha():
    async with service(reflect=True) as (channel, _):
        found = files(await fetch_descriptors(channel))
        pool = DescriptorPool()
        for file in found.values():
            pool.Add(file)
        methods = pool.FindServiceByName(HEALTH).methods_by_name
        assert methods["Check"].input_type.full_name == "grpc.health.v1.HealthCheckRequest"
        assert pool.FindServiceByName(REFLECTION)


def tree(files_, services):
    """A reflection service over these files, name to imports; service x.S lives in x.proto."""
    protos = {name: FileDescriptorProto(name=name, package=name[0], dependency=needs) for name, needs in files_.items()}
    for name in services:
        protos[f"{name[0]}.proto"].service.add(name=name[2:])

    def answer(request):
        reply = ServerReflectionResponse()
        if request.WhichOneof("message_request") == "list_services":
            for name in services:
                reply.list_services_response.service.add(name=name)
            return reply.SerializeToString()
        name = request.file_by_filename or f"{request.file_containing_symbol[0]}.proto"
        if name in protos:
            reply.file_descriptor_response.file_descriptor_proto.append(protos[name].SerializeToString())
        else:
            reply.error_response.error_code = 5
        return reply.SerializeToString()

    return answer


async def test_v1_is_asked_first_and_imports_are_followed():
    answer = tree({"a.proto": ["b.proto"], "b.proto": ["c.proto"], "c.proto": [], "z.proto": []}, ["a.S"])
    handler = Scripted(answer)
    async with service(handler) as (channel, _):
        assert list(files(await fetch_descriptors(channel))) == ["a.proto", "b.proto", "c.proto"]
    assert handler.asked == [METHODS[0]]


async def test_files_that_import_each_other_end():
    async with service(Scripted(tree({"a.proto": ["b.proto"], "b.proto": ["a.proto"]}, ["a.S"]))) as (channel, _):
        assert list(files(await fetch_descriptors(channel))) == ["a.proto", "b.proto"]


async def test_what_is_listed_but_not_described_is_left_out():
    async with service(Scripted(tree({"a.proto": ["gone.proto"]}, ["a.S"]))) as (channel, _):
        assert list(files(await fetch_descriptors(channel))) == ["a.proto"]
    listing = tree({"a.proto": []}, ["a.S"])

    def more(request):
        if request.WhichOneof("message_request") == "list_services":
            reply = ServerReflectionResponse.FromString(listing(request))
            reply.list_services_response.service.add(name="q.Ghost")
            return reply.SerializeToString()
        return listing(request)

    async with service(Scripted(more)) as (channel, _):
        assert list(files(await fetch_descriptors(channel))) == ["a.proto"]


async def refusal(channel, **options):
    with pytest.raises(DescribeError) as caught:
        await fetch_descriptors(channel, **options)
    assert caught.value.code is Code.UNAVAILABLE
    return caught.value.operator


async def test_no_reflection_service_says_so():
    async with service() as (channel, _):
        assert "has no reflection service" in await refusal(channel)


async def test_an_unreachable_upstream_says_so():
    channel = grpc.aio.insecure_channel("127.0.0.1:1")
    assert "UNAVAILABLE" in await refusal(channel)
    await channel.close()


async def test_two_versions_of_one_file_are_refused():
    turn = iter(range(100))

    def answer(request):
        reply = ServerReflectionResponse()
        if request.WhichOneof("message_request") == "list_services":
            for name in ("a.S", "a.T"):
                reply.list_services_response.service.add(name=name)
        else:
            file = FileDescriptorProto(name="a.proto", package=f"p{next(turn)}")
            reply.file_descriptor_response.file_descriptor_proto.append(file.SerializeToString())
        return reply.SerializeToString()

    async with service(Scripted(answer)) as (channel, _):
        assert "a.proto in two ways" in await refusal(channel)


async def test_what_is_not_a_descriptor_is_refused():
    async with service(Scripted(lambda request: b"\xff\xff\xff")) as (channel, _):
        assert "no descriptors" in await refusal(channel)


async def test_too_many_services_too_many_files_and_too_many_bytes_are_refused():
    def services(request):
        reply = ServerReflectionResponse()
        for n in range(fetching.MOST_SERVICES + 1):
            reply.list_services_response.service.add(name=f"s{n}")
        return reply.SerializeToString()

    async with service(Scripted(services)) as (channel, _):
        assert "lists 1025 services" in await refusal(channel)

    def endless(padding):
        def answer(request):
            reply = ServerReflectionResponse()
            if request.WhichOneof("message_request") == "list_services":
                reply.list_services_response.service.add(name="0.proto")
            else:
                name = request.file_by_filename or request.file_containing_symbol
                number = int(name.split(".")[0])
                file = FileDescriptorProto(name=name, dependency=[f"{number + 1}.proto"], package="p" * padding)
                reply.file_descriptor_response.file_descriptor_proto.append(file.SerializeToString())
            return reply.SerializeToString()

        return answer

    async with service(Scripted(endless(1_000_000))) as (channel, _):
        assert "exceed 16777216 bytes" in await refusal(channel)


async def test_a_service_that_answers_forever_is_given_up():
    async def never(request):
        await asyncio.sleep(30)
        return b""

    async with service(Scripted(never)) as (channel, _):
        assert "longer than 0.3 s" in await refusal(channel, seconds=0.3)


# -- through the door -----------------------------------------------------------------------------------------------


async def test_reflection_and_health_pass_through_the_door():
    async with running() as it, service(reflect=True) as (_, address):
        it.point.upstream = type(it.upstream)(address, None, Limits())
        assert HEALTH in {
            name for file in files(await fetch_descriptors(it.channel)).values()
            for name in (f"{file.package}.{one.name}" for one in file.service)
        }  # fmt: skip
        stub = health_pb2_grpc.HealthStub(it.channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=""))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watching = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        watching.cancel()
        await it.point.upstream.close()


def grpcurl():
    local = Path(__file__).parents[2] / ".tools" / "bin" / "grpcurl"
    found = str(local) if local.exists() else shutil.which("grpcurl")
    if found is None:
        why = "grpcurl is missing: GOBIN=$PWD/.tools/bin go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3"
        if os.getenv("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


async def run(*args):
    process = await asyncio.create_subprocess_exec(
        *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode()


async def test_grpcurl_lists_describes_and_calls_through_the_door():
    program = grpcurl()
    async with running() as it, service(reflect=True) as (_, address):
        it.point.upstream = type(it.upstream)(address, None, Limits())
        code, out = await run(program, "-plaintext", it.listener.address, "list")
        assert (code, out.split()) == (0, [HEALTH, REFLECTION])
        code, out = await run(program, "-plaintext", it.listener.address, "describe", HEALTH)
        assert (code, "rpc Watch" in out) == (0, True)
        code, out = await run(program, "-plaintext", it.listener.address, f"{HEALTH}/Check")
        assert (code, "SERVING" in out) == (0, True)
        code, out = await run(
            program, "-plaintext", "-d", '{"service":"nobody"}', it.listener.address, f"{HEALTH}/Check"
        )
        assert (code != 0, "NotFound" in out) == (True, True)
        await it.point.upstream.close()
