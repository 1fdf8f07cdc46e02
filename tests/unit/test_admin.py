"""The admin socket: the owner may ask how the sidecar is, and nothing else happens on it."""

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest

from sidecar.enforcement.admin import AdminSocket
from sidecar.errors import ConfigurationError


async def ask(path: Path, line: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(line)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


def made(path: Path, answer: dict[str, object] | None = None) -> AdminSocket:
    return AdminSocket(path, lambda: {"producer": "a", "problems": []} if answer is None else answer)


async def test_it_answers_and_closes(tmp_path: Path) -> None:
    path = tmp_path / "run" / "admin"
    admin = made(path)
    await admin.start()
    assert json.loads(await ask(path, b"status\n")) == {"producer": "a", "problems": []}
    assert json.loads(await ask(path, b" status \r\n")) == {"producer": "a", "problems": []}
    await admin.stop()
    assert not path.exists()


async def test_only_its_owner_can_open_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = tmp_path / "run" / "admin"
        admin = made(path)
        await admin.start()
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    await admin.stop()


@pytest.mark.parametrize("line", [b"\n", b"stop\n", b"STATUS\n", b"status now\n", b"\xff\xfe\n", b"GET / HTTP/1.1\r\n"])
async def test_there_is_one_question_only(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "admin"
    admin = made(path)
    await admin.start()
    assert json.loads(await ask(path, line)) == {"error": "the only question is: status"}
    await admin.stop()


async def test_a_line_without_end_gets_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    admin = made(path)
    await admin.start()
    assert await ask(path, b"x" * 4096) == b""
    assert json.loads(await ask(path, b"status\n"))["producer"] == "a"
    await admin.stop()


async def test_who_says_nothing_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    admin = made(path)
    await admin.start()
    began = asyncio.get_running_loop().time()
    assert await ask(path, b"stat") == b""
    assert asyncio.get_running_loop().time() - began < 4
    await admin.stop()


async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    server = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), str(path))
    server.close()
    await server.wait_closed()
    assert path.is_socket()
    admin = made(path)
    await admin.start()
    assert json.loads(await ask(path, b"status\n"))["producer"] == "a"
    await admin.stop()


async def test_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    first = made(path, {"first": True})
    await first.start()
    with pytest.raises(ConfigurationError, match="another process answers on it"):
        await made(path).start()
    assert json.loads(await ask(path, b"status\n")) == {"first": True}
    await first.stop()


async def test_a_successor_s_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    first, second = made(path), made(path, {"second": True})
    await first.start()
    path.unlink()
    await second.start()
    await first.stop()
    assert json.loads(await ask(path, b"status\n")) == {"second": True}
    await second.stop()


async def test_stop_without_start_does_nothing(tmp_path: Path) -> None:
    await made(tmp_path / "admin").stop()


@pytest.mark.parametrize("kind", ["file", "folder", "long", "below a file"])
async def test_a_path_that_cannot_be_used_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "admin"
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    elif kind == "long":
        path = tmp_path / ("x" * 120)
    else:
        path.write_text("mine")
        path /= "admin"
    with pytest.raises(
        ConfigurationError, match=r"the admin socket cannot be opened: (?!None).*admin\.socket"
    ) as caught:
        await made(path).start()
    assert str(path) in str(caught.value)
    if kind == "file":
        assert path.read_text() == "mine"
