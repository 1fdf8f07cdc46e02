"""Bodies against leaves: is each stored body what its published leaf commits to, and is none missing?"""

from sqlite3 import Connection

from sidecar.oversight.audit import Finding, Read
from sidecar.record import SALT_SIZE, RecordFormatError, body_digest, decode_digest, parse_leaf
from sidecar.tlog.errors import TlogError
from sidecar.tlog.tile import Tile, changed_bundles, decode_bundle


def check_bodies(database: Connection, read: Read, size: int) -> tuple[list[Finding], int]:
    """Hold the store's leaf and body rows below `size` against the published bundles; findings and bodies checked.

    The database only needs to have the store's `leaf` and `body` tables; a row that differs was altered after it had
    been published, which its INSERT-only triggers cannot prevent in whoever can write the file.
    """
    findings: list[Finding] = []
    checked = 0
    for bundle in changed_bundles(0, size):
        leaves = _published(read, bundle)
        if leaves is None:
            continue  # the audit of the log has named it
        rows = database.execute(
            "SELECT l.idx, l.leaf, b.salt, b.body FROM leaf l LEFT JOIN body b ON b.idx = l.idx "
            "WHERE l.idx >= ? AND l.idx < ? ORDER BY l.idx",
            (bundle.first_leaf, bundle.first_leaf + len(leaves)),
        )
        kept = {row[0]: row[1:] for row in rows}
        for place, leaf in enumerate(leaves):
            index = bundle.first_leaf + place
            problem = _problem(leaf, kept.get(index))
            checked += 1
            if problem:
                findings.append(Finding("body", f"record {index}", problem))
    return findings, checked


def _problem(leaf: bytes, row: tuple[object, object, object] | None) -> str:
    if row is None:
        return "is published and not in the database"
    stored, salt, body = row
    if stored != leaf:
        return "the leaf in the database is not the one that was published"
    if salt is None or body is None:
        return "has no body in the database"
    return _mismatch(leaf, salt, body)


def _mismatch(leaf: bytes, salt: object, body: object) -> str:
    if not isinstance(salt, bytes) or not isinstance(body, bytes):
        return "has a body in the database that is no bytes"
    if len(salt) != SALT_SIZE:
        return f"has a salt of {len(salt)} bytes in the database, not {SALT_SIZE}"  # part of it would pass for body
    try:
        committed = decode_digest(parse_leaf(leaf).body, "body")
    except RecordFormatError:
        return ""  # the audit of the log has named it
    return "" if body_digest(salt, body) == committed else "the body is not what its leaf commits to"


def _published(read: Read, bundle: Tile) -> list[bytes] | None:
    data = read(bundle.path)
    if data is None and bundle.is_partial:
        data = read(Tile(bundle.level, bundle.index).path)
    try:
        return None if data is None else decode_bundle(bundle, data)
    except TlogError:
        return None
