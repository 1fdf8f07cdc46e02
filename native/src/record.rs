//! The bytes of a record, made in one pass: body, leaf, sealed openings, frame.
//!
//! What they mean stands in `sidecar/record.py` and `sidecar/spool/frame.py`, by which the store and the reader judge
//! them; `tests/unit/test_record_bytes.py` holds both equal for any entry.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};
use sha2::{Digest, Sha256};

mod body;
mod form;
mod pool;
mod text;

pub use body::{decision_part, Pseudonyms};
use body::{Entry, Naming};
pub use form::DecisionForm;
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
/// A SHA-256 in base64.
const DIGEST_TEXT: usize = 44;
/// What a frame takes beside body and openings, about.
const FRAME_ROOM: usize = 1024;

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

fn base64(out: &mut Vec<u8>, bytes: &[u8; 32]) {
    out.extend_from_slice(&base64_text(bytes));
}

fn base64_text(bytes: &[u8; 32]) -> [u8; DIGEST_TEXT] {
    let mut text = [0; DIGEST_TEXT];
    // 32 bytes are 44 characters, so it fits.
    let _ = STANDARD.encode_slice(bytes, &mut text);
    text
}

/// Write `bytes` over what stands at `at`.
fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = out.get_mut(at..at.saturating_add(bytes.len())) {
        room.copy_from_slice(bytes);
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

/// A place in the chain: the seq, and the SHA-256 of the leaf before it; none for the very first.
struct Place {
    seq: u64,
    before: Option<[u8; 32]>,
}

impl Place {
    /// before: 32 bytes; empty for the very first.
    fn new(seq: u64, before: &[u8]) -> PyResult<Self> {
        let before = match before.len() {
            0 => None,
            _ => Some(before.try_into().map_err(|_| PyValueError::new_err("a SHA-256 has 32 bytes"))?),
        };
        Ok(Self { seq, before })
    }

    fn digest(&self) -> &[u8] {
        self.before.as_ref().map_or(&[], |digest| digest)
    }
}

/// What a leaf says of its record.
struct Envelope<'a> {
    kind: &'a str,
    time: &'a str,
    call_id: Option<&'a str>,
}

/// Where a leaf stands that was added, and the text of its body's hash.
struct Leaf {
    at: usize,
    hash_at: usize,
}

/// Frames one behind the other, and the SHA-256 of the last leaf.
type Framed<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);

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
    ) -> PyResult<Framed<'py>> {
        let (mut place, mut out) = (Place::new(seq, before)?, Vec::new());
        for draft in drafts {
            let items: [Bound<'py, PyAny>; 5] =
                [draft.get_item(0)?, draft.get_item(1)?, draft.get_item(2)?, draft.get_item(3)?, draft.get_item(4)?];
            let [kind, time, call_id, body, openings] = &items;
            let envelope = Envelope {
                kind: kind.cast::<PyString>()?.to_str()?,
                time: time.cast::<PyString>()?.to_str()?,
                call_id: if call_id.is_none() { None } else { Some(call_id.cast::<PyString>()?.to_str()?) },
            };
            let (body, openings) = (body.cast::<PyBytes>()?.as_bytes(), openings.cast::<PyBytes>()?.as_bytes());
            out.reserve(FRAME_ROOM.saturating_add(body.len()).saturating_add(openings.len()));
            self.add(py, &mut out, &mut place, &envelope, |out, plain| {
                out.extend_from_slice(body);
                plain.extend_from_slice(openings);
                Ok(())
            })?;
        }
        Ok((PyBytes::new(py, &out), PyBytes::new(py, place.digest())))
    }

    /// The frames of these decisions, each in one record, one behind the other, and the SHA-256 of the last leaf.
    ///
    /// seq, before: as for `frames`; key: for the data subjects, None where there are none; entries: `DecisionEntry`; now:
    /// unix seconds. Raises RecordFormatError when one does not fit in one record.
    fn decisions<'py>(
        &self,
        py: Python<'py>,
        seq: u64,
        before: &[u8],
        key: Option<&Bound<'py, Pseudonyms>>,
        entries: &Bound<'py, PyAny>,
        now: f64,
    ) -> PyResult<Framed<'py>> {
        let (mut place, time, mut out) = (Place::new(seq, before)?, stamp(now)?, Vec::new());
        let naming = Naming { key: key.map(Bound::get), random: self.random.get() };
        for entry in entries.try_iter()? {
            let entry = Entry::read(&entry?)?;
            let decided = entry.decided()?;
            out.reserve(FRAME_ROOM.saturating_add(decided.room()?));
            let envelope = Envelope { kind: "decision", time: &time, call_id: Some(decided.call_id) };
            self.add(py, &mut out, &mut place, &envelope, |out, openings| decided.write(out, openings, &naming))?;
        }
        Ok((PyBytes::new(py, &out), PyBytes::new(py, place.digest())))
    }

    /// The frames of these outcomes, one behind the other, and the SHA-256 of the last leaf.
    ///
    /// seq, before: as for `frames`; bodies: `OutcomeBody`; now: unix seconds. Raises RecordFormatError when a body, a leaf
    /// or a frame would be too long.
    fn outcomes<'py>(
        &self,
        py: Python<'py>,
        seq: u64,
        before: &[u8],
        bodies: &Bound<'py, PyAny>,
        now: f64,
    ) -> PyResult<Framed<'py>> {
        let (mut place, time, mut out) = (Place::new(seq, before)?, stamp(now)?, Vec::new());
        for body in bodies.try_iter()? {
            let body = body?;
            out.reserve(FRAME_ROOM);
            let call_id = body.getattr(intern!(py, "call_id"))?;
            let call_id = call_id.cast::<PyString>()?.to_str()?;
            let envelope = Envelope { kind: "outcome", time: &time, call_id: Some(call_id) };
            self.add(py, &mut out, &mut place, &envelope, |out, _| {
                let start = out.len();
                form::encoded(out, b"", &body)?;
                body::fits(out.len().saturating_sub(start))
            })?;
        }
        Ok((PyBytes::new(py, &out), PyBytes::new(py, place.digest())))
    }
}

impl Framer {
    /// Add the frame of one record and move on to the place behind it. `write` adds the body and the plain openings.
    fn add(
        &self,
        py: Python<'_>,
        out: &mut Vec<u8>,
        place: &mut Place,
        envelope: &Envelope<'_>,
        write: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>) -> PyResult<()>,
    ) -> PyResult<()> {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD_SIZE + LENGTHS_SIZE]);
        let leaf = self.leaf(out, place, envelope)?;
        // The salt is drawn behind those of the data subjects, and the leaf's hash of the body is not known before.
        let salt_at = out.len();
        out.extend_from_slice(&[0; SALT_SIZE]);
        let body_at = out.len();
        let mut openings = Vec::new();
        write(out, &mut openings)?;
        let body_size = out.len().saturating_sub(body_at);

        let sealing = if openings.is_empty() { 0 } else { NONCE_SIZE };
        let mut random = [0; SALT_SIZE + NONCE_SIZE];
        let (drawn, _) = random.split_at_mut(SALT_SIZE + sealing);
        self.random.get().fill(py, drawn)?;
        let (salt, nonce) = random.split_at(SALT_SIZE);
        put(out, salt_at, salt);
        let committed = sha256(&[out.get(salt_at..).unwrap_or_default()]);
        put(out, leaf.hash_at, &base64_text(&committed));
        let digest = sha256(&[out.get(leaf.at..salt_at).unwrap_or_default()]);
        if sealing > 0 {
            self.seal(out, place.seq, nonce, &openings)?;
        }

        let payload_at = start.saturating_add(HEAD_SIZE);
        let size = out.len().saturating_sub(payload_at);
        if size > MAX_PAYLOAD {
            return Err(too_long(size));
        }
        let leaf_size = salt_at.saturating_sub(leaf.at);
        put(out, payload_at, &u16::try_from(leaf_size).map_err(|_| too_long(leaf_size))?.to_be_bytes());
        put(out, payload_at.saturating_add(2), &u32::try_from(body_size).map_err(|_| too_long(size))?.to_be_bytes());
        let checksum = crc32c::crc32c(out.get(payload_at..).unwrap_or_default());
        put(out, start, &u32::try_from(size).map_err(|_| too_long(size))?.to_be_bytes());
        put(out, start.saturating_add(4), &checksum.to_be_bytes());
        *place = Place { seq: place.seq.saturating_add(1), before: Some(digest) };
        Ok(())
    }

    /// Add a leaf, in which room is left for the hash of the body.
    fn leaf(&self, out: &mut Vec<u8>, place: &Place, envelope: &Envelope<'_>) -> PyResult<Leaf> {
        let at = out.len();
        out.extend_from_slice(b"{\"v\":1,\"type\":");
        string(out, envelope.kind);
        out.extend_from_slice(&self.origin);
        text::number(out, place.seq);
        out.extend_from_slice(b",\"prev\":");
        match &place.before {
            None => out.extend_from_slice(b"null"),
            Some(digest) => {
                out.push(b'"');
                base64(out, digest);
                out.push(b'"');
            }
        }
        out.extend_from_slice(b",\"time\":");
        string(out, envelope.time);
        out.extend_from_slice(b",\"call_id\":");
        match envelope.call_id {
            None => out.extend_from_slice(b"null"),
            Some(id) => string(out, id),
        }
        out.extend_from_slice(b",\"body\":\"");
        let hash_at = out.len();
        out.extend_from_slice(&[0; DIGEST_TEXT]);
        out.extend_from_slice(b"\"}");
        let size = out.len().saturating_sub(at);
        if size > MAX_LEAF {
            return Err(RecordFormatError::new_err(format!("leaf of {size} bytes; at most {MAX_LEAF}")));
        }
        Ok(Leaf { at, hash_at })
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
