"""What the transparency-log package raises: one family, one class per kind of input."""


class TlogError(ValueError):
    """Input that is malformed or does not prove what it claims. The message says what and where."""


class MerkleError(TlogError):
    """A hash, index, size or proof that does not fit the Merkle tree it is said to belong to."""


class TileError(TlogError):
    """A tile or entry bundle whose name or content is not what the tiled log format prescribes."""


class NoteError(TlogError):
    """A key or signed note that is malformed, or a signature that is wrong or missing."""


class CheckpointError(TlogError):
    """A checkpoint or cosignature that is malformed or not from the log it names."""


class TrustError(TlogError):
    """A trust policy that is malformed, or that a checkpoint does not satisfy."""


class ProofError(TlogError):
    """A proof file that is malformed."""
