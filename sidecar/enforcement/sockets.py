"""Where a listener listens: addresses checked, and Unix sockets that no second process can take over.

gRPC unlinks whatever is at the path of a Unix socket before it binds, and again when it stops. So each worker and
generation has a path of its own, chosen and bound under a lock on the directory, and an old path is removed only when
nobody answers on it.
"""

import contextlib
import errno
import fcntl
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.errors import ConfigurationError

DIRECTORY_MODE = 0o750
SOCKET_MODE = 0o660
_LONGEST_PATH = 107
_GENERATIONS = 64
_LOCK = ".lock"


def is_unix(address: str) -> bool:
    """Whether the address is `unix:DIRECTORY`."""
    return address.startswith("unix:")


def is_loopback(address: str) -> bool:
    """Whether only this host can reach a `host:port`. ConfigurationError if it is no such thing."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigurationError(
            "is not an address to listen on", where="listen.address", value=address,
            fix="Write host:port, [ipv6]:port or unix:DIRECTORY.",
        )  # fmt: skip
    bare = host.removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost"


def prepare_directory(path: Path) -> None:
    """Make the sockets' directory (mode 0750), or check that nobody else can put a socket into it.

    ConfigurationError if it is not a directory, belongs to somebody else, or group or others may write to it.
    """
    try:
        path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise _unusable(path, f"cannot be used: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise _unusable(path, "is not a directory")
    if found.st_uid not in (os.geteuid(), 0):
        raise _unusable(path, "belongs to another user")
    if found.st_mode & 0o022:
        raise _unusable(path, f"may be written to by others (mode {stat.S_IMODE(found.st_mode):04o})")


@contextmanager
def free_path(directory: Path, worker: int) -> Iterator[Path]:
    """A socket path for this worker that nobody listens on; the directory is locked while the caller binds it.

    `WORKER.sock`, or `WORKER-N.sock` while an earlier generation still answers on the names before it. What is left of
    sockets that nobody listens on is removed. ConfigurationError if the path would be too long (107 bytes).
    """
    prepare_directory(directory)
    lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _first_free(directory, worker)
    finally:
        os.close(lock)


def stop_accepting(address: str) -> int:
    """No listening TCP socket of this process at this host:port takes another connection; how many there were.

    gRPC has no way to stop listening but to stop serving, which cancels calls that are just arriving. A listening socket
    that is shut down is no longer among those to which the kernel deals out connections; what is open stays open.
    """
    found = 0
    for one in _own_sockets(address):
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            one.shutdown(socket.SHUT_RD)
            found += 1
    return found


def connections(address: str) -> int:
    """Connections to host:port or unix:PATH that this process has open, those whose handshake is not over included."""
    return sum(_has_peer(one) for one in _own_sockets(address))


def _has_peer(one: socket.socket) -> bool:
    try:
        one.getpeername()
    except OSError:
        return False  # it listens, or did, or the peer has gone
    return True


def _own_sockets(address: str) -> Iterator[socket.socket]:
    """This process's sockets at this address of its own. gRPC does not show them, the kernel does."""
    place = address.removeprefix("unix:") if is_unix(address) else int(address.rpartition(":")[2])
    family = (socket.AF_UNIX,) if is_unix(address) else (socket.AF_INET, socket.AF_INET6)
    for entry in Path("/proc/self/fd").iterdir():
        try:
            one = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:
            continue  # not a socket, or closed meanwhile
        with one, contextlib.suppress(OSError):
            own = one.getsockname() if one.family in family and one.type == socket.SOCK_STREAM else None
            if own == place or (isinstance(own, tuple) and own[1] == place):
                yield one


def point_to(path: Path, worker: int) -> None:
    """Let `worker-N` in the sockets' directory lead to this socket: the newest generation of that worker.

    A caller that connects to it finds the new worker after a reload, whatever the name of its socket is.
    """
    beside = path.with_name(f".worker-{worker}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(path.name)
    beside.replace(path.with_name(f"worker-{worker}"))


def _first_free(directory: Path, worker: int) -> Path:
    for generation in range(_GENERATIONS):
        path = directory / (f"{worker}.sock" if generation == 0 else f"{worker}-{generation}.sock")
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise _unusable(directory, f"is too long for a socket path ({_LONGEST_PATH} bytes)")
        if not _answers(path):
            _remove_stale(path)
            return path
    raise _unusable(directory, f"already has {_GENERATIONS} listening sockets of worker {worker}")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        found = probe.connect_ex(os.fspath(path))
    # A full backlog (EAGAIN) is somebody listening; only these mean that nobody is.
    return found not in (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTSOCK)


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigurationError(
            "is in the way and is not a socket", where=str(path), fix="Remove it, or choose another directory."
        )
    path.unlink()


def _unusable(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(
        what, where=f"listen.address unix:{path}", fix="Name a directory of the sidecar's own, mode 0750."
    )
