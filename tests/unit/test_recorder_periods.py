"""Period keys: fetched, checked, sealed on disk, and good while the key service cannot be reached."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from spooling import Clock, until

from sidecar.api.v1 import oversight_pb2 as wire
from sidecar.api.v1.oversight_pb2_grpc import KeyServiceServicer, add_KeyServiceServicer_to_server
from sidecar.enforcement.periods import PeriodKeyError, PeriodKeys
from sidecar.errors import IntegrityError

pytestmark = pytest.mark.unit

PRODUCER_KEY = Ed25519PrivateKey.from_private_bytes(b"P" * 32)


def wire_key(name: str, start: str, until_: str, key: bytes = b"k" * 32) -> wire.PeriodKey:
    return wire.PeriodKey(period=name, until=until_, key=key, **{"from": start})


MONTHS = [
    wire_key("2026-11-01", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", b"1" * 32),
    wire_key("2026-12-01", "2026-12-01T00:00:00Z", "2026-12-31T00:00:00Z", b"2" * 32),
    wire_key("2026-12-31", "2026-12-31T00:00:00Z", "2027-01-30T00:00:00Z", b"3" * 32),
]


@dataclass
class Service(KeyServiceServicer):
    keys: list[wire.PeriodKey] = field(default_factory=lambda: list(MONTHS))
    asked: list[str] = field(default_factory=list)
    down: bool = False

    async def GetPeriodKeys(  # noqa: N802
        self, request: wire.GetPeriodKeysRequest, context: grpc.aio.ServicerContext
    ) -> wire.GetPeriodKeysResponse:
        self.asked.append(request.producer)
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down for now")
        return wire.GetPeriodKeysResponse(keys=self.keys)


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[str]:
    server = grpc.aio.server()
    add_KeyServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def keys_at(
    address: str, file: Path, clock: Clock, key: Ed25519PrivateKey = PRODUCER_KEY, name: str = "p1"
) -> PeriodKeys:
    return PeriodKeys(
        producer=name, private_key=key, file=file, channel=lambda: grpc.aio.insecure_channel(address), now=clock,
        jitter=lambda: 0.0, timeout=30,
    )  # fmt: skip


async def test_the_key_of_the_moment_is_given_and_none_outside(tmp_path: Path) -> None:
    clock = Clock()
    async with serving(Service()) as address:
        keys = keys_at(address, tmp_path / "keys", clock)
        assert keys.current(clock.now) is None
        await keys.refresh()
    at = datetime(2026, 12, 1, tzinfo=UTC)
    found = [
        keys.current(moment)
        for moment in (clock.now, at - timedelta(microseconds=1), at, datetime(2027, 1, 29, tzinfo=UTC))
    ]
    assert [one.key[:1] if one else None for one in found] == [b"1", b"1", b"2", b"3"]
    assert keys.current(datetime(2026, 10, 31, tzinfo=UTC)) is None
    assert keys.current(datetime(2027, 1, 30, tzinfo=UTC)) is None


async def test_the_keys_are_sealed_on_disk_and_open_only_for_their_producer(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "sub" / "keys"
    async with serving(Service()) as address:
        await keys_at(address, file, clock).refresh()
    data = file.read_bytes()
    assert b"2026-11" not in data
    assert b"111111" not in data
    assert file.stat().st_mode & 0o077 == 0
    again = keys_at("127.0.0.1:1", file, clock)
    again.load()
    found = again.current(clock.now)
    assert found is not None
    assert found.key == b"1" * 32
    others = [
        keys_at("127.0.0.1:1", file, clock, key=Ed25519PrivateKey.generate()),
        keys_at("127.0.0.1:1", file, clock, name="p2"),
    ]
    for other in others:
        with pytest.raises(IntegrityError, match="do not open"):
            other.load()
    for at in range(len(data)):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(IntegrityError):
            again.load()
    file.write_bytes(b"")
    with pytest.raises(IntegrityError):
        again.load()


async def test_no_file_is_no_error(tmp_path: Path) -> None:
    clock = Clock()
    keys = keys_at("127.0.0.1:1", tmp_path / "none", clock)
    keys.load()
    assert keys.current(clock.now) is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ([wire_key("a", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", b"short")], "no key of 32 bytes"),
        ([wire_key("", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")], "no name"),
        ([wire_key("a", "2026-12-01T00:00:00Z", "2026-11-01T00:00:00Z")], "ends before it starts"),
        ([wire_key("a", "yesterday", "2026-11-01T00:00:00Z")], "RFC 3339"),
        ([wire_key("a", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
          wire_key("b", "2026-11-30T00:00:00Z", "2026-12-30T00:00:00Z")], "overlap"),
    ],
)  # fmt: skip
async def test_an_answer_that_cannot_be_used_changes_nothing(
    tmp_path: Path, answer: list[wire.PeriodKey], why: str
) -> None:
    clock, service = Clock(), Service()
    async with serving(service) as address:
        keys = keys_at(address, tmp_path / "keys", clock)
        await keys.refresh()
        before = (tmp_path / "keys").read_bytes()
        service.keys = answer
        with pytest.raises(PeriodKeyError, match=why):
            await keys.refresh()
    assert (tmp_path / "keys").read_bytes() == before
    assert keys.current(clock.now) is not None


async def test_a_key_that_changes_within_its_period_is_refused(tmp_path: Path) -> None:
    clock, service = Clock(), Service()
    async with serving(service) as address:
        keys = keys_at(address, tmp_path / "keys", clock)
        await keys.refresh()
        service.keys = [wire_key("2026-11-01", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", b"X" * 32)]
        with pytest.raises(PeriodKeyError, match="changed the key"):
            await keys.refresh()
    found = keys.current(clock.now)
    assert found is not None
    assert found.key == b"1" * 32


async def test_keys_of_periods_long_over_are_forgotten(tmp_path: Path) -> None:
    clock, service = Clock(), Service()
    async with serving(service) as address:
        keys = keys_at(address, tmp_path / "keys", clock)
        await keys.refresh()
        clock.move(30 * 86400)
        service.keys = MONTHS[1:]
        await keys.refresh()
    assert keys.current(datetime(2026, 11, 20, tzinfo=UTC)) is None
    assert keys.current(clock.now) is not None


async def test_a_key_service_that_comes_back_is_used(tmp_path: Path) -> None:
    clock, service = Clock(), Service(down=True)
    async with serving(service) as address:
        keys = keys_at(address, tmp_path / "keys", clock)
        task = asyncio.create_task(keys.run())
        await until(lambda: "down for now" in keys.last_error)
        assert keys.current(clock.now) is None
        service.down = False
        await until(lambda: keys.current(clock.now) is not None)
        assert keys.last_error == ""
        assert set(service.asked) == {"p1"}
        task.cancel()
        await asyncio.wait([task])
