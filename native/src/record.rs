//! The bytes of a record, made in one pass: body, leaf, sealed openings, frame.
//!
//! What they mean stands in `sidecar/record.py` and `sidecar/spool/frame.py`, by which the store and the reader judge
//! them; `tests/unit/test_record_bytes.py` holds both equal for any entry.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};
use sha2::{Digest, Sha256};

mod body;
mod pool;
mod text;

pub use body::decision_draft;
pub use pool::{forked, RandomPool};
pub use text::stamp;
use text::string;

pyo3::import_exception!(sidecar.record, RecordFormatError);

const MAX_LEAF: usize = 1024;
/// The reader takes a longer one for damage.
const MAX_PAYLOAD: usize = 256 * 1024;
const SALT_SIZE: usize = 32;
const NONCE_SIZE: usize = 12;
/// Length and checksum of a frame.
const HEAD_SIZE: usize = 8;
/// Lengths of leaf and body.
const LENGTHS_SIZE: usize = 6;

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

fn base64(out: &mut Vec<u8>, bytes: &[u8; 32]) {
    let mut text = [0; 44];
    // 32 bytes are 44 characters.
    if let Ok(size) = STANDARD.encode_slice(bytes, &mut text) {
        out.extend_from_slice(text.get(..size).unwrap_or_default());
    }
}

/// Puts the records of one epoch into frames, each with a salt of its own, and seals their openings.
///
/// producer, slot, epoch: as in leaves; key: the epoch's, 32 bytes; random: where salts and nonces come from. Nothing of
/// the chain is kept here: a place whose write failed is given to another record.
#[pyclass(frozen, module = "sidecar._native")]
pub struct Framer {
    /// `,"producer":…,"slot":…,"epoch":…,"seq":`, the same in every leaf.
    origin: Vec<u8>,
    /// All of the associated data but the seq and its length.
    bound: Vec<u8>,
    cipher: Aes256Gcm,
    random: Py<RandomPool>,
}

struct Draft<'a, 'py> {
    kind: &'a Bound<'py, PyString>,
    time: &'a Bound<'py, PyString>,
    call_id: Option<&'a Bound<'py, PyString>>,
    body: &'a [u8],
    openings: &'a [u8],
}

#[pymethods]
impl Framer {
    #[new]
    fn new(producer: &str, slot: u32, epoch: &str, key: &[u8], random: Py<RandomPool>) -> PyResult<Self> {
        let cipher =
            Aes256Gcm::new_from_slice(key).map_err(|_| PyValueError::new_err("the key of an epoch has 32 bytes"))?;
        let slot = slot.to_string();
        let mut origin = b",\"producer\":".to_vec();
        string(&mut origin, producer);
        origin.extend_from_slice(b",\"slot\":");
        origin.extend_from_slice(slot.as_bytes());
        origin.extend_from_slice(b",\"epoch\":");
        string(&mut origin, epoch);
        origin.extend_from_slice(b",\"seq\":");
        let mut bound = Vec::new();
        for part in [producer, &slot, epoch] {
            preceded_by_length(&mut bound, part.as_bytes())?;
        }
        Ok(Self { origin, bound, cipher, random })
    }

    /// The frames of these records, one behind the other, and the SHA-256 of the last leaf.
    ///
    /// seq: the first one's; before: the SHA-256 of the leaf before it, empty for the very first; drafts: tuples as `Draft`.
    /// Raises RecordFormatError when a leaf or a frame would be too long.
    fn frames<'py>(
        &self,
        py: Python<'py>,
        seq: u64,
        before: &[u8],
        drafts: Vec<Bound<'py, PyTuple>>,
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let mut last: Option<[u8; 32]> = match before.len() {
            0 => None,
            _ => Some(before.try_into().map_err(|_| PyValueError::new_err("a SHA-256 has 32 bytes"))?),
        };
        let mut out = Vec::new();
        for (draft, seq) in drafts.iter().zip(seq..) {
            let items: [Bound<'py, PyAny>; 5] =
                [draft.get_item(0)?, draft.get_item(1)?, draft.get_item(2)?, draft.get_item(3)?, draft.get_item(4)?];
            let [kind, time, call_id, body, openings] = &items;
            let draft = Draft {
                kind: kind.cast()?,
                time: time.cast()?,
                call_id: if call_id.is_none() { None } else { Some(call_id.cast()?) },
                body: body.cast::<PyBytes>()?.as_bytes(),
                openings: openings.cast::<PyBytes>()?.as_bytes(),
            };
            last = Some(self.add(py, &mut out, seq, last.as_ref(), &draft)?);
        }
        let digest: &[u8] = last.as_ref().map_or(&[], |digest| digest);
        Ok((PyBytes::new(py, &out), PyBytes::new(py, digest)))
    }
}

impl Framer {
    /// Add the frame of one record and return the SHA-256 of its leaf.
    fn add(
        &self,
        py: Python<'_>,
        out: &mut Vec<u8>,
        seq: u64,
        before: Option<&[u8; 32]>,
        draft: &Draft<'_, '_>,
    ) -> PyResult<[u8; 32]> {
        let sealing = if draft.openings.is_empty() { 0 } else { NONCE_SIZE };
        let mut random = [0; SALT_SIZE + NONCE_SIZE];
        let (drawn, _) = random.split_at_mut(SALT_SIZE + sealing);
        self.random.get().fill(py, drawn)?;
        let (salt, nonce) = random.split_at(SALT_SIZE);

        let start = out.len();
        out.reserve(MAX_LEAF + draft.body.len() + draft.openings.len() + 128);
        out.extend_from_slice(&[0; HEAD_SIZE + LENGTHS_SIZE]);
        let leaf_at = out.len();
        self.leaf(out, seq, before, draft, &sha256(&[salt, draft.body]))?;
        let leaf = out.get(leaf_at..).unwrap_or_default();
        if leaf.len() > MAX_LEAF {
            return Err(RecordFormatError::new_err(format!("leaf of {} bytes; at most {MAX_LEAF}", leaf.len())));
        }
        let digest = sha256(&[leaf]);
        let leaf_size = u16::try_from(leaf.len()).map_err(|_| too_long(leaf.len()))?;
        let body_size = u32::try_from(draft.body.len()).map_err(|_| too_long(draft.body.len()))?;
        out.extend_from_slice(salt);
        out.extend_from_slice(draft.body);
        if sealing > 0 {
            self.seal(out, seq, nonce, draft.openings)?;
        }

        let frame = out.get_mut(start..).unwrap_or_default();
        let (head, payload) = frame.split_at_mut(HEAD_SIZE);
        let size = payload.len();
        if size > MAX_PAYLOAD {
            return Err(too_long(size));
        }
        let (lengths, _) = payload.split_at_mut(LENGTHS_SIZE);
        let (first, second) = lengths.split_at_mut(2);
        first.copy_from_slice(&leaf_size.to_be_bytes());
        second.copy_from_slice(&body_size.to_be_bytes());
        let (first, second) = head.split_at_mut(4);
        first.copy_from_slice(&u32::try_from(size).map_err(|_| too_long(size))?.to_be_bytes());
        second.copy_from_slice(&crc32c::crc32c(payload).to_be_bytes());
        Ok(digest)
    }

    fn leaf(
        &self,
        out: &mut Vec<u8>,
        seq: u64,
        before: Option<&[u8; 32]>,
        draft: &Draft<'_, '_>,
        body: &[u8; 32],
    ) -> PyResult<()> {
        out.extend_from_slice(b"{\"v\":1,\"type\":");
        string(out, draft.kind.to_str()?);
        out.extend_from_slice(&self.origin);
        text::number(out, seq);
        out.extend_from_slice(b",\"prev\":");
        match before {
            None => out.extend_from_slice(b"null"),
            Some(digest) => {
                out.push(b'"');
                base64(out, digest);
                out.push(b'"');
            }
        }
        out.extend_from_slice(b",\"time\":");
        string(out, draft.time.to_str()?);
        out.extend_from_slice(b",\"call_id\":");
        match draft.call_id {
            None => out.extend_from_slice(b"null"),
            Some(id) => string(out, id.to_str()?),
        }
        out.extend_from_slice(b",\"body\":\"");
        base64(out, body);
        out.extend_from_slice(b"\"}");
        Ok(())
    }

    /// Add the nonce and the openings under the epoch's key.
    fn seal(&self, out: &mut Vec<u8>, seq: u64, nonce: &[u8], openings: &[u8]) -> PyResult<()> {
        let mut bound = self.bound.clone();
        preceded_by_length(&mut bound, seq.to_string().as_bytes())?;
        out.extend_from_slice(nonce);
        let start = out.len();
        out.extend_from_slice(openings);
        let failed = |_| PyValueError::new_err("the openings cannot be sealed");
        let nonce = Nonce::try_from(nonce).map_err(|_| PyValueError::new_err("a nonce has 12 bytes"))?;
        let sealed = out.get_mut(start..).unwrap_or_default();
        let tag = self.cipher.encrypt_inout_detached(&nonce, &bound, sealed.into()).map_err(failed)?;
        out.extend_from_slice(&tag);
        Ok(())
    }
}

fn preceded_by_length(out: &mut Vec<u8>, part: &[u8]) -> PyResult<()> {
    out.extend_from_slice(&u32::try_from(part.len()).map_err(|_| too_long(part.len()))?.to_be_bytes());
    out.extend_from_slice(part);
    Ok(())
}

fn too_long(size: usize) -> PyErr {
    RecordFormatError::new_err(format!("a record of {size} bytes; at most {MAX_PAYLOAD}"))
}
