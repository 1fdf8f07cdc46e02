"""Logs written here, judged by Go: Tessera's fsck rebuilds every tile, x/mod's note package verifies every signature.

``tlog-fsck`` is the program in tests/conformance/fsck, built by ``make tools``.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from sidecar.tlog.cosignature import CosignatureSigner
from sidecar.tlog.key import Signer, Verifier
from sidecar.tlog.merkle import leaf_hash
from sidecar.tlog.note import sign_note
from sidecar.tlog.tile import TileBuilder, changed_bundles, encode_bundle

ORIGIN = "log.example/conformance"
PROGRAM = Path(__file__).parents[3] / ".tools" / "bin" / "tlog-fsck"
SIZES = [0, 1, 255, 256, 257, 1000, 70_000]

LOG = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
WITNESS = CosignatureSigner("witness.example", Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))


@pytest.fixture(scope="module")
def judge() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The Go program: call it with its arguments."""
    if not PROGRAM.exists():
        reason = "tlog-fsck is not built: install Go and run 'make tools'"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)

    return run


def leaf(number: int) -> bytes:
    """Leaves of many lengths, empty ones included, of bytes that are no text."""
    return b"\xff\x00%d\n" % number * (number % 5)


class Folder:
    """A log in a folder, grown in steps as an integrator does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.builder = TileBuilder()
        self.key = root / "log.vkey"
        self.write("log.vkey", str(LOG.key).encode())

    def write(self, path: str, data: bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def grow(self, size: int) -> None:
        old = self.builder.size
        for number in range(old, size):
            self.builder.append(leaf_hash(leaf(number)))
        for bundle in changed_bundles(old, size):
            first = bundle.first_leaf
            self.write(bundle.path, encode_bundle([leaf(number) for number in range(first, first + bundle.width)]))
        for tile, data in self.builder.take().items():
            self.write(tile.path, data)
        self.publish(Checkpoint(origin=ORIGIN, size=size, root=self.builder.root()))

    def publish(self, checkpoint: Checkpoint) -> None:
        self.write(
            "checkpoint", sign_checkpoint(checkpoint, [LOG], [WITNESS.cosign(checkpoint.encode(), 1_700_000_000)])
        )

    def flip(self, path: str, at: int) -> None:
        data = bytearray((self.root / path).read_bytes())
        data[at] ^= 1
        self.write(path, bytes(data))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = Folder(tmp_path_factory.mktemp("large"))
    for size in (300, 65_536, 70_000):
        folder.grow(size)
    return folder


@pytest.fixture
def spoiled(large: Folder) -> Iterator[Folder]:
    """The large log, put right again after the test has changed files in it."""
    before = {path: path.read_bytes() for path in large.root.rglob("*") if path.is_file()}
    yield large
    for path, data in before.items():
        path.write_bytes(data)


@pytest.mark.parametrize("size", SIZES)
def test_a_log_of_this_size_is_intact(
    judge: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, size: int
) -> None:
    folder = Folder(tmp_path)
    folder.grow(size)
    result = judge("log", folder.root, folder.key, ORIGIN)
    assert (result.returncode, result.stdout) == (0, "log is intact\n"), result.stderr


def test_a_log_that_grew_in_steps_is_intact(
    judge: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    folder = Folder(tmp_path)
    for size in (0, 1, 3, 255, 256, 257, 511, 512, 513, 1000):
        folder.grow(size)
        result = judge("log", folder.root, folder.key, ORIGIN)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("path", "at"),
    [
        ("tile/entries/000", 2000),
        ("tile/entries/000", 0),
        ("tile/entries/000", 1),
        ("tile/entries/273.p/112", -1),
        ("tile/0/000", 0),
        ("tile/0/137", 4242),
        ("tile/0/273.p/112", 3583),
        ("tile/1/000", 8191),
        ("tile/1/001.p/17", 1),
        ("tile/2/000.p/1", 31),
        ("checkpoint", 0),
        ("checkpoint", len(ORIGIN) + 1),
        ("checkpoint", len(ORIGIN) + 8),
        ("checkpoint", len(ORIGIN) + 80),
    ],
)
def test_one_flipped_bit_is_found(
    judge: Callable[..., subprocess.CompletedProcess[str]], spoiled: Folder, path: str, at: int
) -> None:
    assert judge("log", spoiled.root, spoiled.key, ORIGIN).returncode == 0
    spoiled.flip(path, at)
    result = judge("log", spoiled.root, spoiled.key, ORIGIN)
    assert result.returncode == 1, result.stdout
    assert "tlog-fsck:" in result.stderr


def test_many_wrong_tiles_are_found(judge: Callable[..., subprocess.CompletedProcess[str]], spoiled: Folder) -> None:
    for index in range(200):
        spoiled.flip(f"tile/0/{index:03d}", 7)
    assert judge("log", spoiled.root, spoiled.key, ORIGIN).returncode == 1


@pytest.mark.parametrize("path", ["tile/entries/100", "tile/0/100", "tile/1/001.p/17", "checkpoint"])
def test_a_missing_file_is_found(
    judge: Callable[..., subprocess.CompletedProcess[str]], spoiled: Folder, path: str
) -> None:
    (spoiled.root / path).unlink()
    assert judge("log", spoiled.root, spoiled.key, ORIGIN).returncode == 1


@pytest.mark.parametrize("path", ["tile/entries/273.p/112", "tile/0/273.p/112", "tile/entries/007"])
@pytest.mark.parametrize("cut", [True, False])
def test_a_file_that_is_too_short_or_too_long_is_found(
    judge: Callable[..., subprocess.CompletedProcess[str]], spoiled: Folder, path: str, cut: bool
) -> None:
    data = (spoiled.root / path).read_bytes()
    spoiled.write(path, data[:-1] if cut else data + bytes(32))
    assert judge("log", spoiled.root, spoiled.key, ORIGIN).returncode == 1


def test_a_signed_lie_about_the_root_is_found(
    judge: Callable[..., subprocess.CompletedProcess[str]], spoiled: Folder
) -> None:
    spoiled.publish(Checkpoint(origin=ORIGIN, size=70_000, root=leaf_hash(b"lie")))
    result = judge("log", spoiled.root, spoiled.key, ORIGIN)
    assert (result.returncode, "checkpoint claims" in result.stderr) == (1, True)


def test_another_origin_or_key_is_refused(
    judge: Callable[..., subprocess.CompletedProcess[str]], large: Folder, tmp_path: Path
) -> None:
    other = tmp_path / "other.vkey"
    other.write_text(str(Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"\x03" * 32)).key))
    assert judge("log", large.root, large.key, "log.example/other").returncode == 1
    assert judge("log", large.root, other, ORIGIN).returncode == 1


def test_wrong_usage_is_neither(judge: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert judge("log").returncode == 2
    assert judge().returncode == 2


def test_notes_and_cosignatures_verify_in_go(
    judge: Callable[..., subprocess.CompletedProcess[str]], large: Folder, tmp_path: Path
) -> None:
    witness = tmp_path / "witness.vkey"
    witness.write_text(str(WITNESS.key))
    result = judge("note", large.root / "checkpoint", large.key, witness)
    assert (result.returncode, "2 signatures verified" in result.stdout) == (0, True), result.stderr
    unsigned = tmp_path / "note"
    unsigned.write_bytes(sign_note("blank\n\nand ü\n".encode(), [LOG]))
    assert judge("note", unsigned, large.key).returncode == 0
    assert judge("note", unsigned, large.key, witness).returncode == 1
    unsigned.write_bytes(unsigned.read_bytes().replace("ü".encode(), b"u"))
    assert judge("note", unsigned, large.key).returncode == 1


def test_what_go_accepts_is_read_back(large: Folder) -> None:
    signed = open_checkpoint((large.root / "checkpoint").read_bytes(), [Verifier(LOG.key)])
    assert (signed.checkpoint.size, signed.checkpoint.root) == (70_000, large.builder.root())
    assert len(signed.unknown) == 1
