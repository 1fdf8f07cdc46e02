"""Transparency log: what makes a list of records provable to people who trust neither of the parties that keep it.

Pure functions and values: no input or output, no clock, no randomness. Whatever needs a file, a time or a new key
is handed it by the caller. The formats are public ones, so that others' tools read and check what is made here.

==============  ==========================================================  =======================================
module          gives                                                       source
==============  ==========================================================  =======================================
``merkle``      leaf and node hashes, roots, `CompactRange`; inclusion,     RFC 6962 section 2.1, RFC 9162 section 2.1
                consistency and range proofs, made and verified
``tile``        names and contents of tiles and entry bundles,              c2sp.org/tlog-tiles
                `TileBuilder` (write), `NodeReader` (read)
``key``         `VerifierKey` (vkey), `Signer`, `Verifier`                  c2sp.org/signed-note
``note``        signed text: parse, format, open                            c2sp.org/signed-note
``checkpoint``  the signed statement "my tree of this size has this root"   c2sp.org/tlog-checkpoint
``cosignature`` a witness's statement that it saw the checkpoint            c2sp.org/tlog-cosignature
``trust``       which logs and how many witnesses a reader believes         c2sp.org/tlog-policy
``proof``       one leaf, its inclusion proof and its checkpoint, in one    c2sp.org/tlog-proof
                file that is verified offline
``encoding``    exact base64 and decimal, shared by the parsers             RFC 4648 section 4
``errors``      `TlogError` and one subclass per kind of input              --
==============  ==========================================================  =======================================

Three rules hold in every module:

* A check that fails raises; nothing returns a boolean that a caller could forget to look at.
* Bytes that are not exactly in the format are refused, never repaired: there is one encoding of each value.
* Only `TlogError` escapes from a function that was given bytes or text from outside.
"""
