"""The small file that outlives the segments: the chain's head and what was deleted."""

from pathlib import Path
from typing import Literal

import msgspec
from google_crc32c import value as crc32c

from sidecar.errors import IntegrityError
from sidecar.spool.segment import Head

STATE = "state"
STATE_RESERVE = 64 * 1024


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`head`: the chain's last record when this was written, `newest` the highest segment number by then.

    Deleted are all numbers under `below`, and those in `deleted`. `closed` holds (segment, call): the call's outcome
    went with that segment while an earlier segment, which may hold its decision, stayed.
    """

    v: Literal[1] = 1
    head: Head | None = None
    newest: int = 0
    below: int = 1
    deleted: tuple[int, ...] = ()
    closed: tuple[tuple[int, str], ...] = ()

    def is_deleted(self, number: int) -> bool:
        """Whether that segment was deleted on purpose."""
        return number < self.below or number in self.deleted


def encode_state(state: State) -> bytes:
    """One line of JSON, one line with its CRC32C in hex."""
    data = msgspec.json.encode(state)
    return data + f"\n{crc32c(data):08x}\n".encode()


def read_state(folder: Path) -> State:
    """The state of a slot; the empty one when there is no file yet. IntegrityError when it is damaged."""
    path = folder / STATE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return State()
    line, _, rest = data.partition(b"\n")
    try:
        if rest != f"{crc32c(line):08x}\n".encode():
            raise ValueError("its checksum does not fit")  # noqa: TRY301 - one way out for all damage
        return msgspec.json.decode(line, type=State)
    except (ValueError, msgspec.DecodeError) as error:
        raise IntegrityError(
            f"the spool's state is damaged: {error}",
            where=f"{path}, offset 0",
            fix="Restore the file from a copy. Without one, move the slot's folder aside (keep it for the reviewers): "
            "the chain then starts without a previous epoch, and the store shows the old one as tail_unknown",
        ) from None
