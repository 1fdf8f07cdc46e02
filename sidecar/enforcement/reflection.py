"""Fetches an upstream's descriptors from its reflection service (grpc/grpc doc/server-reflection.md).

Version 1 is asked first and v1alpha where it is not implemented; their messages are the same on the wire. Everything is
bounded: a service that answers with too much, too many or too slowly describes nothing.
"""

import asyncio

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from sidecar.errors import Code, DescribeError

METHODS = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
SECONDS = 5.0
MOST_BYTES = 16 << 20
MOST_FILES = 4096
MOST_SERVICES = 1024

Stream = grpc.aio.StreamStreamCall[bytes, bytes]


async def fetch_descriptors(channel: grpc.aio.Channel, *, seconds: float = SECONDS) -> bytes:
    """A FileDescriptorSet of all services the upstream lists and everything they import, by file name.

    What the upstream lists or imports but does not have is left out: the methods of such a service are then refused as
    undescribed, and whoever loads the set names the file that is missing.
    DescribeError (UNAVAILABLE) when the upstream cannot be asked, contradicts itself, or exceeds a bound.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _fetch(channel)
    except TimeoutError:
        raise _failed(f"the upstream's reflection took longer than {seconds:g} s") from None
    except grpc.aio.AioRpcError as error:
        raise _failed(f"the upstream's reflection failed: {error.code().name}: {error.details()}") from None
    except DecodeError:
        raise _failed("the upstream's reflection sent bytes that are no descriptors") from None


async def _fetch(channel: grpc.aio.Channel) -> bytes:
    for method in METHODS:
        call: Stream = channel.stream_stream(method)()
        try:
            return await _Session(call).all()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
        finally:
            call.cancel()
    raise _failed("the upstream has no reflection service")


class _Session:
    """One reflection stream: questions in turn, and the files seen so far."""

    def __init__(self, call: Stream) -> None:
        self._call = call
        self._files: dict[str, bytes] = {}
        self._imports = set[str]()
        self._bytes = 0

    async def all(self) -> bytes:
        listed = await self._ask(ServerReflectionRequest(list_services=""))
        names = sorted({service.name for service in listed.list_services_response.service})
        if len(names) > MOST_SERVICES:
            raise _failed(f"the upstream lists {len(names)} services; at most {MOST_SERVICES} are read")
        for name in names:
            self._take(await self._ask(ServerReflectionRequest(file_containing_symbol=name)))
        asked = set[str]()
        while missing := self._imports - self._files.keys() - asked:
            for name in sorted(missing):
                self._take(await self._ask(ServerReflectionRequest(file_by_filename=name)))
            asked |= missing
        return self._set()

    async def _ask(self, question: ServerReflectionRequest) -> ServerReflectionResponse:
        await self._call.write(question.SerializeToString())
        answer: object = await self._call.read()
        if not isinstance(answer, bytes):
            raise _failed("the upstream ended the reflection stream before it had answered")
        self._bytes += len(answer)
        if self._bytes > MOST_BYTES:
            raise _failed(f"the upstream's descriptors exceed {MOST_BYTES} bytes")
        return ServerReflectionResponse.FromString(answer)

    def _take(self, answer: ServerReflectionResponse) -> None:
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(data)
            if self._files.setdefault(file.name, data) != data:
                raise _failed(f"the upstream describes {file.name} in two ways")
            self._imports.update(file.dependency)
        if len(self._files) > MOST_FILES:
            raise _failed(f"the upstream describes more than {MOST_FILES} files")

    def _set(self) -> bytes:
        result = FileDescriptorSet()
        for name in sorted(self._files):
            result.file.append(FileDescriptorProto.FromString(self._files[name]))
        data: bytes = result.SerializeToString(deterministic=True)
        return data


def _failed(what: str) -> DescribeError:
    return DescribeError(
        "the service's methods are not described",
        code=Code.UNAVAILABLE,
        operator=f"{what}. Give the descriptors as a file (describe.descriptors.file) if it stays so.",
    )
