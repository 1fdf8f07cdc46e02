"""A real `opa` under the sidecar: bounded, private, quiet, and gone with whoever started it."""

import asyncio
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from opa_parts import PERMIT, bundle, decide

from sidecar.decision.opa import OpaMaker
from sidecar.decision.opa_program import MEMORY, OpaProgram
from sidecar.decision.opa_server import OpaServer, sweep
from sidecar.errors import ConfigurationError, DecideError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where private folders are made. Short: a socket's path may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="opa-"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def program(needs) -> str:
    return str(needs("opa", "run `make tools`"))


@pytest.fixture
def said() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def maker(program, said, temporary) -> OpaMaker:
    return OpaMaker(program, 10.0, lambda *what: said.append(what))


@pytest.fixture
def server(program, said, temporary):
    found = OpaServer(OpaProgram(program), bundle(), lambda *what: said.append(what))
    found.start()
    yield found
    found.stop()


def until(holds, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def test_it_listens_on_a_private_socket_and_nowhere_else(server):
    process = psutil.Process(server.pid)
    socket = server.address.socket
    assert process.net_connections("inet") == []
    assert stat.S_IMODE(socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert socket.parent.stat().st_uid == os.getuid()


def test_it_sees_nothing_of_the_sidecars_environment_and_is_bounded(server):
    environment = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
    assert {one.partition(b"=")[0] for one in environment if one} == {b"HOME", b"TMPDIR", b"GOMAXPROCS", b"GOMEMLIMIT"}
    process = psutil.Process(server.pid)
    assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert process.rlimit(psutil.RLIMIT_DATA) == (MEMORY, MEMORY)
    arguments = process.cmdline()
    assert {"--skip-version-check", "error"} <= set(arguments)
    assert not any(str(ROOT / "policies") in one for one in arguments)


def test_stopped_it_leaves_nothing(server, temporary):
    pid, folder = server.pid, server.address.socket.parent
    server.stop()
    server.stop()
    assert not psutil.pid_exists(pid)
    assert not folder.exists()
    assert list(temporary.iterdir()) == []


def test_killed_it_is_started_again_and_somebody_is_told(server, said):
    pid = server.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: server.pid not in (None, pid))
    assert said[0][0] == "opa_ended"
    assert "-9" in said[0][1]


def test_one_that_dies_again_and_again_is_started_ever_more_rarely(server, said):
    for _ in range(4):
        pid = server.pid
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: server.pid not in (None, pid))
    pauses = [float(detail.split(" in ")[-1].split()[0]) for _, detail in said]
    assert pauses == [0.1, 0.2, 0.4, 0.8]


PARENT = """
import asyncio, json, sys, threading
sys.path[:0] = {path!r}
from opa_parts import bundle
from sidecar.decision.opa import OpaMaker
engine = OpaMaker({program!r}, 2.0, print).make(bundle())
print(json.dumps([engine._stop.__self__.pid, str(engine._stop.__self__.address.socket.parent)]), flush=True)
threading.Event().wait()
"""


def test_it_dies_with_a_sidecar_that_is_killed_and_the_next_one_sweeps_up(program, temporary):
    code = PARENT.format(path=[str(ROOT), str(ROOT / "tests")], program=program)
    environment = {"TMPDIR": str(temporary), "PATH": os.environ["PATH"]}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as parent:
        pid, folder = json.loads(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert Path(folder).exists()
    sweep(temporary)
    assert not Path(folder).exists()


def test_sweeping_leaves_what_is_in_use_and_what_is_not_ours(server, temporary):
    folder = server.address.socket.parent
    (temporary / "customhouse-opa-server-link").symlink_to(folder)
    (temporary / "customhouse-opa-server-other").mkdir()  # no lock in it: somebody is just making it
    sweep(temporary)
    assert (folder / "s").exists()
    assert (temporary / "customhouse-opa-server-other").exists()
    with (folder / "lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_errors_reach_the_operator_and_ordinary_lines_do_not(said, temporary, tmp_path):
    script = tmp_path / "opa"
    script.write_text(
        "#!/bin/sh\n"
        'echo \'{"level":"warning","msg":"quite usual"}\' >&2\n'
        'echo \'{"level":"error","msg":"no good","err":"the reason"}\' >&2\n'
        "echo panic: plain text >&2\nexit 3\n"
    )
    script.chmod(0o755)
    server = OpaServer(OpaProgram(str(script)), bundle(), lambda *what: said.append(what))
    with pytest.raises(ConfigurationError, match="OPA does not start: no good the reason; panic: plain text"):
        server.start()
    assert list(temporary.iterdir()) == []


def test_a_program_that_is_missing_or_no_opa_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"decision.opa.command: no such program"):
        OpaMaker("opa-that-is-not-there", 1.0, print)
    with pytest.raises(ConfigurationError, match=r"not OPA 1.0 or newer"):
        OpaMaker("/bin/true", 1.0, print).run_tests(bundle())


def test_an_older_opa_is_refused(tmp_path):
    script = tmp_path / "opa"
    script.write_text("#!/bin/sh\necho Version: 0.70.0\n")
    script.chmod(0o755)
    with pytest.raises(ConfigurationError, match=r"not OPA 1.0 or newer"):
        OpaMaker(str(script), 1.0, print).make(bundle())


def test_a_folder_too_deep_for_a_socket_is_named(program, tmp_path, monkeypatch):
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(ConfigurationError, match="too long for a socket"):
        OpaServer(OpaProgram(program), bundle(), print)
    assert list(deep.iterdir()) == []


async def test_a_policy_that_runs_away_stops_when_nobody_waits_for_it(program, said, temporary):
    spin = "count([1 | some a in data.l; some b in data.l; some c in data.l; a + b + c == 1]) >= 0"
    rules = f'decision := {json.dumps(PERMIT)} if {{\n  input.action.name == "export"\n  {spin}\n}}'
    engine = await asyncio.to_thread(OpaMaker(program, 1.0, print).make, bundle(rules, data={"l": list(range(600))}))
    process = psutil.Process(engine._stop.__self__.pid)
    with pytest.raises(DecideError):
        await decide(engine, action="export")
    used, end = 1.0, time.monotonic() + 60
    while used >= 0.5:
        assert time.monotonic() < end, "it goes on, though nobody waits for it"
        before = process.cpu_times().user
        await asyncio.sleep(1)
        used = process.cpu_times().user - before
    await engine.close()


async def test_what_a_rule_prints_or_fails_with_is_nowhere_in_the_log(maker, said):
    rules = (
        f'decision := {json.dumps(PERMIT)} if {{\n  print("seen", input.subject.person.id)\n  lower(input.version)\n}}'
    )
    engine = await asyncio.to_thread(maker.make, bundle(rules))
    with pytest.raises(DecideError):
        await decide(engine, "a-name-that-shows")
    await engine.close()
    assert "a-name-that-shows" not in repr(said)


async def test_a_bundle_that_does_not_load_leaves_nothing_behind(maker, temporary):
    with pytest.raises(ConfigurationError, match="do not load in OPA"):
        await asyncio.to_thread(maker.make, bundle("decision := {"))
    assert list(temporary.iterdir()) == []
