"""A whole published log in memory: real records of several producers, tiles, bundles, checkpoint."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.record import Leaf, body_digest, encode_digest, encode_leaf, leaf_digest
from sidecar.tlog.checkpoint import Checkpoint, sign_checkpoint
from sidecar.tlog.key import Signer
from sidecar.tlog.merkle import inclusion_proof, leaf_hash
from sidecar.tlog.proof import TlogProof
from sidecar.tlog.tile import NodeReader, TileBuilder, changed_bundles, encode_bundle
from sidecar.tlog.trust import Trust

ORIGIN = "oversight.test/log"
TIME = "2026-11-22T10:00:00.000000Z"
SALT = b"\x07" * 32


def epoch(number: int) -> str:
    """A UUIDv7 whose time is `number`."""
    return f"{number:08x}-0000-7000-8000-000000000000"


@dataclass
class Writer:
    """A producer slot's chain of leaves."""

    producer: str = "profiles-1"
    slot: int = 0
    number: int = 1
    seq: int = 0
    prev: str | None = None

    def leaf(self, type_: str | None = None, *, prev: str | None = None, seq: int | None = None) -> bytes:
        """The next leaf; with `seq` or `prev` given, one that claims those."""
        at = self.seq if seq is None else seq
        made = encode_leaf(
            Leaf(
                type=type_ or ("open" if at == 0 else "decision"),  # type: ignore[arg-type]
                producer=self.producer,
                slot=self.slot,
                epoch=epoch(self.number),
                seq=at,
                prev=self.prev if prev is None else prev,
                time=TIME,
                call_id=None,
                body=encode_digest(body_digest(SALT, body_of(self.producer, self.number, at))),
            )
        )
        self.seq, self.prev = at + 1, encode_digest(leaf_digest(made))
        return made

    def leaves(self, count: int) -> list[bytes]:
        return [self.leaf() for _ in range(count)]

    def restart(self, number: int | None = None) -> "Writer":
        """The next epoch of the slot."""
        return Writer(self.producer, self.slot, self.number + 1 if number is None else number, 0, self.prev)


def body_of(producer: str, number: int, seq: int) -> bytes:
    """The body that a `Writer`'s leaf commits to."""
    return f'{{"v":1,"type":"decision","details":{{"of":"{producer}","epoch":{number},"seq":{seq}}}}}'.encode()


def mixed(count: int) -> list[bytes]:
    """That many leaves of three producers in turn, with a new epoch every 90 records."""
    writers = [Writer(f"profiles-{number}", number % 2) for number in range(3)]
    found = []
    for at in range(count):
        writer = writers[at % 3]
        if writer.seq == 30:
            writer = writers[at % 3] = writer.restart()
        found.append(writer.leaf())
    return found


@dataclass
class PublishedLog:
    """Grows as an integrator grows it, in steps; `files` is what a mirror has."""

    files: dict[str, bytes] = field(default_factory=dict)
    leaves: list[bytes] = field(default_factory=list)
    key: Ed25519PrivateKey = field(default_factory=lambda: Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
    builder: TileBuilder = field(default_factory=TileBuilder)

    @property
    def signer(self) -> Signer:
        return Signer(ORIGIN, self.key)

    @property
    def trust(self) -> Trust:
        return Trust.for_log(str(self.signer.key))

    def grow(self, leaves: Iterable[bytes], *, publish: bool = True) -> "PublishedLog":
        old = len(self.leaves)
        self.leaves += leaves
        for one in self.leaves[old:]:
            self.builder.append(leaf_hash(one))
        for bundle in changed_bundles(old, len(self.leaves)):
            first = bundle.first_leaf
            self.files[bundle.path] = encode_bundle(self.leaves[first : first + bundle.width])
        self.files |= {tile.path: content for tile, content in self.builder.take().items()}
        if publish:
            self.files["checkpoint"] = self.checkpoint()
        return self

    def checkpoint(self) -> bytes:
        stated = Checkpoint(origin=ORIGIN, size=len(self.leaves), root=self.builder.root())
        return sign_checkpoint(stated, [self.signer])

    def forget_partials(self) -> None:
        """Remove partial tiles whose full tile is there, as the integrator does."""
        for path in [path for path in self.files if ".p/" in path and path.split(".p/")[0] in self.files]:
            del self.files[path]

    def proof(self, index: int) -> bytes:
        size = len(self.leaves)
        hashes = inclusion_proof(index, size, NodeReader(size, lambda tile: self.files[tile.path]))
        return TlogProof(index=index, hashes=tuple(hashes), checkpoint=self.files["checkpoint"]).encode()

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)


def stored(log: PublishedLog, folder: Path) -> Path:
    """The log as tlog-tiles files, and a trust file beside."""
    for path, data in log.files.items():
        file = folder / "tiles" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (folder / "trust.txt").write_text(f"log {log.signer.key}\nquorum none\n")
    return folder / "tiles"
