//! What is sent to the oversight store, made from the spool's own bytes, and what its receipts are checked against.
//!
//! The meaning of frames and of the tree stands in `sidecar/spool/frame.py` and `sidecar/tlog/merkle.py`; this is the
//! same, without an object for each record.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sha2::{Digest, Sha256};

const FRAME: usize = 8;
const LENGTHS: usize = 6;
const SALT: usize = 32;
const NONCE: usize = 12;
const MOST: usize = 256 * 1024;
const HASH: usize = 32;

type Hash = [u8; HASH];

/// Consecutive records of one epoch. `first_seq`: the first of them; `count`: how many; `items`: the `items` of a
/// `sidecar.api.v1.Batch`, encoded; `leaf_hashes`: 32 bytes each, in order; `root`: of the tree over them; `next_seq`
/// and `end`: the seq of the frame where reading stopped, and its place. `stopped`: what stands there is no whole frame.
#[pyclass(frozen, get_all, module = "sidecar._native")]
pub struct Parcel {
    first_seq: u64,
    count: usize,
    items: Py<PyBytes>,
    leaf_hashes: Py<PyBytes>,
    root: Py<PyBytes>,
    next_seq: u64,
    end: usize,
    stopped: bool,
}

/// The payload of the frame that begins `data`; None unless it is whole.
fn frame(data: &[u8]) -> Option<&[u8]> {
    let length = word(data, 0)?;
    if !(1..=MOST).contains(&length) {
        return None;
    }
    let payload = data.get(FRAME..FRAME + length)?;
    (crc32c::crc32c(payload) as usize == word(data, 4)?).then_some(payload)
}

fn word(data: &[u8], at: usize) -> Option<usize> {
    let bytes: [u8; 4] = data.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes) as usize)
}

/// Leaf, salt, body, nonce and sealed openings; None when they do not add up.
fn parts(payload: &[u8]) -> Option<[&[u8]; 5]> {
    let leaf_size = u16::from_be_bytes([*payload.first()?, *payload.get(1)?]);
    let salt_at = LENGTHS + usize::from(leaf_size);
    let body_at = salt_at + SALT;
    let nonce_at = body_at.checked_add(word(payload, 2)?)?;
    let rest = payload.len().checked_sub(nonce_at)?;
    if rest > 0 && rest <= NONCE {
        return None;
    }
    let sealed_at = nonce_at + rest.min(NONCE);
    Some([
        &payload[LENGTHS..salt_at],
        &payload[salt_at..body_at],
        &payload[body_at..nonce_at],
        &payload[nonce_at..sealed_at],
        &payload[sealed_at..],
    ])
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_size(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// The record as an `Item` in the field `items` (3) of a `Batch`. Empty fields are left out, as protobuf leaves them.
fn item(out: &mut Vec<u8>, parts: &[&[u8]; 5]) {
    let filled = || parts.iter().zip(1u8..).filter(|(part, _)| !part.is_empty());
    let size: usize = filled().map(|(part, _)| 1 + varint_size(part.len()) + part.len()).sum();
    out.push(3 << 3 | 2);
    varint(out, size);
    for (part, field) in filled() {
        out.push(field << 3 | 2);
        varint(out, part.len());
        out.extend_from_slice(part);
    }
}

fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of the tree over these leaf hashes (RFC 6962 section 2.1).
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
            node_hash(&root(left), &root(right))
        }
    }
}

/// The largest power of two below `size`, which is more than 1.
fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// The records with seqs from `after` to before `until`, at most `limit`, read from frames of which the first has `seq`.
///
/// Frames before `after` are passed over. Reading ends at `until`, at `limit`, at the first frame that begins at or
/// behind `most_bytes`, at the end of the data, or where no whole frame stands.
#[pyfunction]
pub fn parcel(
    py: Python<'_>,
    data: &[u8],
    seq: u64,
    after: u64,
    until: u64,
    limit: usize,
    most_bytes: usize,
) -> Parcel {
    let (mut end, mut next_seq, mut stopped) = (0, seq, false);
    let mut items = Vec::with_capacity(data.len().min(most_bytes) + 64);
    let mut leaves: Vec<Hash> = Vec::new();
    while end < data.len() && end < most_bytes && leaves.len() < limit {
        let Some(payload) = frame(&data[end..]) else {
            stopped = true;
            break;
        };
        if next_seq >= until {
            break;
        }
        if next_seq >= after {
            let Some(parts) = parts(payload) else {
                stopped = true;
                break;
            };
            item(&mut items, &parts);
            leaves.push(leaf_hash(parts[0]));
        }
        end += FRAME + payload.len();
        next_seq += 1;
    }
    Parcel {
        first_seq: next_seq - leaves.len() as u64,
        count: leaves.len(),
        items: PyBytes::new(py, &items).unbind(),
        leaf_hashes: PyBytes::new(py, leaves.as_flattened()).unbind(),
        root: PyBytes::new(py, &root(&leaves)).unbind(),
        next_seq,
        end,
        stopped,
    }
}

/// The root of a tree of `size` leaves in which these stand from `first` on, by the range proof given with them.
///
/// `leaf_hashes`: 32 bytes each. None when this cannot be a range of that tree, or the proof has not just the hashes
/// that it needs; see `sidecar.tlog.merkle.verify_range`.
#[pyfunction]
pub fn range_root<'py>(
    py: Python<'py>,
    leaf_hashes: &[u8],
    first: u64,
    size: u64,
    proof: Vec<Bound<'py, PyBytes>>,
) -> Option<Bound<'py, PyBytes>> {
    let (leaves, rest) = leaf_hashes.as_chunks::<HASH>();
    let end = first.checked_add(leaves.len() as u64)?;
    if !rest.is_empty() || leaves.is_empty() || end > size || size > i64::MAX as u64 {
        return None;
    }
    let hashes: Option<Vec<Hash>> = proof.iter().map(|one| one.as_bytes().try_into().ok()).collect();
    let hashes = hashes?;
    let mut supplied = hashes.iter();
    let range = Range { leaves, first, end };
    let found = range.compute(0, size, &mut supplied)?;
    supplied.next().is_none().then(|| PyBytes::new(py, &found))
}

struct Range<'a> {
    leaves: &'a [Hash],
    first: u64,
    end: u64,
}

impl Range<'_> {
    fn compute(&self, low: u64, high: u64, supplied: &mut std::slice::Iter<'_, Hash>) -> Option<Hash> {
        if high <= self.first || self.end <= low {
            return supplied.next().copied();
        }
        if self.first <= low && high <= self.end {
            let (from, to) = ((low - self.first) as usize, (high - self.first) as usize);
            return Some(root(&self.leaves[from..to]));
        }
        let middle = low + split(high - low);
        let left = self.compute(low, middle, supplied)?;
        Some(node_hash(&left, &self.compute(middle, high, supplied)?))
    }
}
