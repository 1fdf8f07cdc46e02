r"""The SQLite schema of the log's database: the map for whoever reads it without this program.

================  ========  ==========================================================================================
table             changes   one row is
================  ========  ==========================================================================================
``leaf``          never     a leaf: ``idx`` is its place in the log, ``stream`` its epoch, ``leaf`` its exact bytes
``body``          never     what the leaf commits to: ``SHA-256(salt || body)``; same ``idx``
``run``           never     records with consecutive seqs and indices; ``branch`` 0 the chain, 1 equivocations;
                            ``digest`` = SHA-256 over their Merkle leaf hashes as received
``batch``         never     a signed batch header (serialized BatchHeader) and its Ed25519 signature over
                            ``customhouse/batch/v1\n || header``; ``idx`` is the first record that it brought
``stream``        never     an epoch of a producer slot; ``attested`` 0: sender that does not sign
``head``          yes       where a stream stands: see `storage.Head`
``gap``           yes       missing seqs of a stream, first and last inclusive; removed when filled
``discovery``     never     something found wrong: see `storage.Discovery`
``epoch_key``     never     an epoch's record key, sealed (HPKE) to the store's sealing key
``sealed``        yes       openings on their way to the key database; removed (and overwritten) there
``signed``        never     a size and its root, stored before the log signs them; one root per size
``checkpoint``    never     a published checkpoint (signed note)
``lease``         yes       who integrates, until when, and the fencing token
================  ========  ==========================================================================================

"Never" is enforced by triggers: UPDATE, DELETE and REPLACE abort, and a leaf whose index is not the next one aborts.
Whoever can write the file can drop a trigger: that is a limit of SQLite, and the reason why what was published as
tiles and checkpoints, and not this file, is what proofs are checked against.
"""

VERSION = 1

_TABLES = """
CREATE TABLE stream (id INTEGER PRIMARY KEY, producer TEXT NOT NULL, slot INTEGER NOT NULL, epoch TEXT NOT NULL,
    attested INTEGER NOT NULL, UNIQUE (producer, slot, epoch)) STRICT;
CREATE TABLE head (stream INTEGER PRIMARY KEY REFERENCES stream, last_seq INTEGER NOT NULL, last_digest BLOB,
    opened INTEGER NOT NULL, opened_prev BLOB, link_epoch TEXT, link_seq INTEGER, closed INTEGER NOT NULL,
    received TEXT NOT NULL) STRICT;
CREATE TABLE leaf (idx INTEGER PRIMARY KEY, stream INTEGER NOT NULL, leaf BLOB NOT NULL) STRICT;
CREATE TABLE body (idx INTEGER PRIMARY KEY, salt BLOB NOT NULL, body BLOB NOT NULL) STRICT;
CREATE TABLE run (first_idx INTEGER PRIMARY KEY, stream INTEGER NOT NULL, branch INTEGER NOT NULL,
    first_seq INTEGER NOT NULL, count INTEGER NOT NULL, digest BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX run_by_seq ON run (stream, branch, first_seq, first_idx);
CREATE TABLE batch (idx INTEGER PRIMARY KEY, header BLOB NOT NULL, signature BLOB NOT NULL) STRICT;
CREATE TABLE gap (stream INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, after BLOB,
    before BLOB, since TEXT NOT NULL, PRIMARY KEY (stream, first_seq)) STRICT, WITHOUT ROWID;
CREATE TABLE discovery (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, stream INTEGER NOT NULL, seq INTEGER NOT NULL,
    idx INTEGER NOT NULL, detail TEXT NOT NULL, since TEXT NOT NULL, UNIQUE (kind, idx, detail)) STRICT;
CREATE TABLE epoch_key (id INTEGER PRIMARY KEY, producer TEXT NOT NULL, slot INTEGER NOT NULL, epoch TEXT NOT NULL,
    sealed BLOB NOT NULL, UNIQUE (producer, slot, epoch, sealed)) STRICT;
CREATE TABLE sealed (idx INTEGER PRIMARY KEY, nonce BLOB NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE TABLE signed (size INTEGER PRIMARY KEY, root BLOB NOT NULL, token INTEGER NOT NULL) STRICT;
CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, note BLOB NOT NULL, at TEXT NOT NULL) STRICT;
CREATE TABLE lease (name TEXT PRIMARY KEY, holder TEXT NOT NULL, token INTEGER NOT NULL,
    expires REAL NOT NULL) STRICT, WITHOUT ROWID;
"""

_TAKEN = {
    "run": "first_idx = NEW.first_idx",
    "batch": "idx = NEW.idx",
    "stream": "id = NEW.id OR (producer, slot, epoch) = (NEW.producer, NEW.slot, NEW.epoch)",
    "discovery": "id = NEW.id OR (kind, idx, detail) = (NEW.kind, NEW.idx, NEW.detail)",
    "epoch_key": "id = NEW.id OR (producer, slot, epoch, sealed) = (NEW.producer, NEW.slot, NEW.epoch, NEW.sealed)",
    "signed": "size = NEW.size",
    "checkpoint": "size = NEW.size",
}
_IN_ORDER = ("leaf", "body")


def statements() -> str:
    """The whole schema as one script.

    The INSERT triggers are there because `INSERT OR REPLACE` removes rows without firing a DELETE trigger.
    """
    script = [_TABLES]
    for table in (*_TAKEN, *_IN_ORDER):
        script += [
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} takes INSERT only'); END;"
            for verb in ("UPDATE", "DELETE")
        ]
    script += [
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
        f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {taken}) "
        f"BEGIN SELECT RAISE(ABORT, '{table} takes INSERT only'); END;"
        for table, taken in _TAKEN.items()
    ]
    script += [
        f"CREATE TRIGGER {table}_in_order BEFORE INSERT ON {table} "
        f"WHEN NEW.idx <> (SELECT coalesce(max(idx) + 1, 0) FROM {table}) "
        f"BEGIN SELECT RAISE(ABORT, '{table} indices have no hole and no second row'); END;"
        for table in _IN_ORDER
    ]
    script.append(f"PRAGMA user_version = {VERSION};")
    return "\n".join(script)
