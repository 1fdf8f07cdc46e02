"""Starts, watches and stops the demo's processes; each writes its own log file."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

READY_SECONDS = 180.0
STOP_SECONDS = 8.0


class StartError(Exception):
    """A process did not come up. Names it, and the end of its log."""


def free_port() -> int:
    """A TCP port on the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Processes:
    """The processes of one demo, by name."""

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._order: list[str] = []

    def start(self, name: str, command: Sequence[str], ready: Callable[[], bool]) -> None:
        """Start a process and wait until `ready` says so. StartError when it ends or takes too long."""
        self.launch(name, command)
        self.await_ready(name, ready)

    def launch(self, name: str, command: Sequence[str]) -> None:
        """Start a process, without waiting for it."""
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        if name not in self._order:
            self._order.append(name)

    def await_ready(self, name: str, ready: Callable[[], bool]) -> None:
        """Wait until `ready` says so. StartError when the process ends or takes too long."""
        process = self._running[name]
        until = time.monotonic() + READY_SECONDS
        while not ready():
            if process.poll() is not None:
                raise StartError(f"{name} ended with {process.returncode}: {self._tail(name)}")
            if time.monotonic() > until:
                raise StartError(f"{name} was not ready after {READY_SECONDS:.0f} s: {self._tail(name)}")
            time.sleep(0.02)

    def kill(self, name: str) -> None:
        """As a power cut would: SIGKILL, no goodbye."""
        self._end(name, signal.SIGKILL)

    def stop(self, name: str) -> None:
        """SIGTERM, and SIGKILL for one that does not go."""
        self._end(name, signal.SIGTERM)

    def stop_all(self) -> None:
        """Stop what was started; the last that was started for the first time goes first."""
        for name in reversed(self._order):
            if name in self._running:
                self.stop(name)

    def pid(self, name: str) -> int:
        """The process id of a running part."""
        return self._running[name].pid

    def _end(self, name: str, how: signal.Signals) -> None:
        process = self._running.pop(name)
        for number, seconds in ((how, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                return

    def _tail(self, name: str) -> str:
        text = (self._logs / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip()
        return " | ".join(text.splitlines()[-5:])[-2000:] or "its log is empty"


def listening(port: int) -> Callable[[], bool]:
    """A `ready` that holds once something accepts connections on the port."""

    def ready() -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return ready
