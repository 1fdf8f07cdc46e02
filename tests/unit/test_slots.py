"""Slots of one spool: who has which, and which nobody has."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.enforcement.sockets import connections, point_to, stop_accepting
from sidecar.errors import ConfigurationError
from sidecar.main.slots import MOST, abandoned
from sidecar.spool.slot import SlotInUseError, held, take_lock

HOLDER = """
import sys, time
from pathlib import Path
from sidecar.spool.slot import take_lock
take_lock(Path(sys.argv[1]))
print("taken", flush=True)
time.sleep(60)
"""


def slot(spool: Path, number: int | str, *, records: bool = True) -> Path:
    folder = spool / str(number)
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    if records:
        (folder / "00000001.seg").write_bytes(b"x")
    return folder


def test_a_slot_is_abandoned_when_it_holds_records_and_no_process_has_it(tmp_path: Path) -> None:
    held_here = take_lock(slot(tmp_path, 0) / "lock")
    slot(tmp_path, 1)
    slot(tmp_path, 2, records=False)
    for other in ("policies", "07", str(MOST), "-1"):
        slot(tmp_path, other)
    (tmp_path / "period-keys").touch()
    assert abandoned(tmp_path) == {1}
    os.close(held_here)
    assert abandoned(tmp_path) == {0, 1}
    assert abandoned(tmp_path / "missing") == frozenset()


def test_a_slot_comes_free_however_its_process_ends(tmp_path: Path) -> None:
    lock = slot(tmp_path, 3) / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"taken\n"
        assert abandoned(tmp_path) == frozenset()
        with pytest.raises(SlotInUseError):
            take_lock(lock)
        holder.send_signal(signal.SIGKILL)
        holder.wait(30)
        assert abandoned(tmp_path) == {3}
        os.close(take_lock(lock))
    finally:
        holder.kill()
        holder.communicate()


def test_looking_is_not_taking(tmp_path: Path) -> None:
    lock = slot(tmp_path, 0) / "lock"
    assert abandoned(tmp_path) == abandoned(tmp_path) == {0}
    os.close(take_lock(lock))


def test_one_sidecar_at_a_time_uses_a_spool(tmp_path: Path) -> None:
    spool = tmp_path / "new" / "spool"
    with held(spool):
        with pytest.raises(ConfigurationError, match=r"another sidecar uses this spool.*workers"):
            with held(spool):
                pass
    with held(spool):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigurationError, match=r"the spool cannot be used: .*record\.spool|record\.spool: .*cannot be used"
    ):
        with held(tmp_path / "file" / "spool"):
            pass


def test_a_process_sees_its_own_connections_and_stops_taking_more(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        address = f"127.0.0.1:{port}"
        assert connections(address) == 0
        with socket.create_connection(("127.0.0.1", port)), listening.accept()[0]:
            assert connections(address) == 1, "the other end is at another port"
            assert stop_accepting(address) == 1
            assert connections(address) == 1, "what is open stays open"
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
        assert connections(address) == 0
        assert stop_accepting(f"127.0.0.1:{port + 1 if port < 65535 else port - 1}") == 0


def test_the_newest_socket_of_a_worker_is_found_under_its_number(tmp_path: Path) -> None:
    for name in ("0.sock", "0-1.sock"):
        point_to(tmp_path / name, 0)
        assert (tmp_path / "worker-0").readlink() == Path(name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "0-1.sock"))
        listening.listen()
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(tmp_path / "worker-0"))
            with listening.accept()[0]:
                assert connections(f"unix:{tmp_path / '0-1.sock'}") == 1
