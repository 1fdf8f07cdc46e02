"""The admin socket: its owner may ask what there is a command for, is known by name, and nothing else happens on it."""

import asyncio
import json
import os
import pwd
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
import uvloop

from sidecar.enforcement.admin import AdminSocket
from sidecar.errors import ConfigurationError


async def ask(path: Path, line: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(line)
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return answer


def made(path: Path, answer: dict[str, object] | None = None) -> AdminSocket:
    async def status(_arguments: Sequence[str], _who: str) -> dict[str, object]:
        return {"producer": "a", "problems": []} if answer is None else answer

    async def echo(arguments: Sequence[str], who: str) -> dict[str, object]:
        return {"arguments": list(arguments), "who": who}

    async def refuse(_arguments: Sequence[str], _who: str) -> dict[str, object]:
        raise ConfigurationError("cannot be done", where="here", fix="Mend it")

    return AdminSocket(path, {"status": status, "policy.echo": echo, "policy.refuse": refuse})


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


ODD = [b"\n", b"stop\n", b"STATUS\n", b"status now\n", b"\xff\xfe\n", b"GET / HTTP/1.1\r\n", b"[]\n", b'["stop"]\n',
       b'["status", 1]\n', b'[["status"]]\n', b"[" * 4000 + b"\n", b'["status"\n']  # fmt: skip


@pytest.mark.parametrize("line", ODD)
async def test_there_are_these_commands_only(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "admin"
    admin = made(path)
    await admin.start()
    assert json.loads(await ask(path, line)) == {"error": "the commands are: policy.echo, policy.refuse, status"}
    await admin.stop()


async def test_a_command_gets_its_arguments_and_who_asks(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    admin = made(path)
    await admin.start()
    me = pwd.getpwuid(os.getuid()).pw_name
    assert json.loads(await ask(path, b'["policy.echo", "a b", "\\u00e9"]\n')) == {"arguments": ["a b", "é"], "who": me}
    assert json.loads(await ask(path, b"policy.echo\n")) == {"arguments": [], "who": me}
    await admin.stop()


async def test_a_refusal_is_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    admin = made(path)
    await admin.start()
    assert json.loads(await ask(path, b"policy.refuse\n")) == {"error": "here: cannot be done. Mend it"}
    await admin.stop()


def test_who_asks_is_known_under_uvloop_too(tmp_path: Path) -> None:
    async def asked() -> object:
        admin = made(tmp_path / "admin")
        await admin.start()
        answer = json.loads(await ask(tmp_path / "admin", b"policy.echo\n"))
        await admin.stop()
        return answer["who"]

    assert uvloop.run(asked()) == pwd.getpwuid(os.getuid()).pw_name


async def test_a_line_without_end_gets_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    admin = made(path)
    await admin.start()
    assert await ask(path, b"x" * 40_000) == b""
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
