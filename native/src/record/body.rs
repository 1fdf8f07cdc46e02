//! The body of a decision, and the openings of the data subjects it names.

use std::borrow::Cow;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString, PyTuple};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::Sha256;

use super::pool::RandomPool;
use super::text::{number, string};
use super::{base64, sha256, RecordFormatError, SALT_SIZE};

const MAX_BODY: usize = 64 * 1024;
/// About what stands in a body beside documents and data subjects, and what one of these takes.
const ROOM: usize = 1024;
const SUBJECT_ROOM: usize = 128;
const FIELDS: usize = 17;

/// (type, time, call_id, body, plain openings, whether it permits).
type Drafted<'py> =
    (Bound<'py, PyString>, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyBytes>, Bound<'py, PyBytes>, bool);

/// A `Draft` of one part of a decision; its openings are empty without data subjects.
///
/// entry: a `DecisionEntry`; subjects: (kind, id, class) of those in this part; period, key: the pseudonym key's name and
/// bytes; time: RFC 3339; random: where the salts come from. Raises RecordFormatError beyond 64 kB.
#[pyfunction]
#[pyo3(signature = (entry, subjects, period, key, time, random, part = 1, parts = 1))]
#[allow(clippy::too_many_arguments)]
pub fn decision_draft<'py>(
    py: Python<'py>,
    entry: &Bound<'py, PyAny>,
    subjects: &Bound<'py, PyAny>,
    period: &str,
    key: &[u8],
    time: Bound<'py, PyAny>,
    random: &RandomPool,
    part: u32,
    parts: u32,
) -> PyResult<Drafted<'py>> {
    let structs = Structs::of(py)?;
    // One call for all fields: reading them by name costs more than writing them.
    let fields = structs.fields(entry)?;
    let [call_id, phase, service, method, door, trace, policy, directory, index, input, decision, obligations, level, engine, eval_us, _, _] =
        &fields;
    let count = subjects.len()?;
    let room = count.saturating_mul(SUBJECT_ROOM);
    let input = PyBuffer::<u8>::get(input)?;
    let decision = PyBuffer::<u8>::get(decision)?;
    let documents = input.item_count().saturating_add(decision.item_count());
    let mut out = Vec::with_capacity(ROOM.saturating_add(documents).saturating_add(room));
    let mut openings = Vec::with_capacity(room);

    text(&mut out, b"{\"v\":1,\"call_id\":", call_id)?;
    text(&mut out, b",\"type\":\"decision\",\"phase\":", phase)?;
    text(&mut out, b",\"service\":", service)?;
    text(&mut out, b",\"method\":", method)?;
    text(&mut out, b",\"door\":", door)?;
    structs.encoded(&mut out, b",\"trace\":", trace)?;
    structs.encoded(&mut out, b",\"policy\":", policy)?;
    maybe(&mut out, b",\"directory\":", directory)?;
    maybe(&mut out, b",\"index\":", index)?;
    document(py, &mut out, b",\"input\":", &input)?;
    let opens = permits(document(py, &mut out, b",\"decision\":", &decision)?);
    out.extend_from_slice(b",\"subjects\":[");
    if count > 0 {
        name(&mut out, &mut openings, subjects, period, key, random)?;
    }
    structs.encoded(&mut out, b"],\"obligations\":", obligations)?;
    text(&mut out, b",\"level\":", level)?;
    text(&mut out, b",\"engine\":", engine)?;
    out.extend_from_slice(b",\"eval_us\":");
    number(&mut out, eval_us.extract::<i64>()?);
    out.extend_from_slice(b",\"part\":");
    number(&mut out, part);
    out.extend_from_slice(b",\"parts\":");
    number(&mut out, parts);
    out.push(b'}');
    if out.len() > MAX_BODY {
        return Err(RecordFormatError::new_err(format!("body of {} bytes; at most {MAX_BODY}", out.len())));
    }
    let kind = pyo3::intern!(py, "decision").clone();
    Ok((kind, time, call_id.clone(), PyBytes::new(py, &out), PyBytes::new(py, &openings), opens))
}

/// The references of these data subjects, and their openings.
fn name(
    out: &mut Vec<u8>,
    openings: &mut Vec<u8>,
    subjects: &Bound<'_, PyAny>,
    period: &str,
    key: &[u8],
    random: &RandomPool,
) -> PyResult<()> {
    let py = subjects.py();
    let keyed =
        Hmac::<Sha256>::new_from_slice(key).map_err(|_| PyValueError::new_err("the period's key cannot be used"))?;
    let mut salt = [0; SALT_SIZE];
    let mut before: &[u8] = b"[";
    for subject in subjects.try_iter()? {
        let subject = subject?;
        let subject = subject.cast::<PyTuple>()?;
        let (kind, id, class) = (subject.get_item(0)?, subject.get_item(1)?, subject.get_item(2)?);
        random.fill(py, &mut salt)?;
        let mut mac = keyed.clone();
        mac.update(kind.cast::<PyString>()?.to_str()?.as_bytes());
        mac.update(b"\0");
        mac.update(id.cast::<PyString>()?.to_str()?.as_bytes());
        let pseudonym: [u8; 32] = mac.finalize().into_bytes().into();
        openings.extend_from_slice(before);
        openings.extend_from_slice(b"{\"salt\":\"");
        base64(openings, &salt);
        openings.extend_from_slice(b"\",\"pseudonym\":\"");
        base64(openings, &pseudonym);
        openings.extend_from_slice(b"\"}");
        out.extend_from_slice(if before == b"[" { b"" } else { b"," });
        text(out, b"{\"class\":", &class)?;
        out.extend_from_slice(b",\"ref\":\"");
        base64(out, &sha256(&[&salt, &pseudonym]));
        out.extend_from_slice(b"\",\"period\":");
        string(out, period);
        out.push(b'}');
        before = b",";
    }
    openings.push(b']');
    Ok(())
}

fn text(out: &mut Vec<u8>, before: &[u8], value: &Bound<'_, PyAny>) -> PyResult<()> {
    out.extend_from_slice(before);
    string(out, value.cast::<PyString>()?.to_str()?);
    Ok(())
}

fn maybe(out: &mut Vec<u8>, before: &[u8], value: &Bound<'_, PyAny>) -> PyResult<()> {
    if value.is_none() {
        out.extend_from_slice(before);
        out.extend_from_slice(b"null");
        return Ok(());
    }
    text(out, before, value)
}

/// Add a document as it is, and return it.
fn document<'a>(py: Python<'_>, out: &'a mut Vec<u8>, before: &[u8], document: &PyBuffer<u8>) -> PyResult<&'a [u8]> {
    out.extend_from_slice(before);
    let start = out.len();
    out.resize(start.saturating_add(document.item_count()), 0);
    let room = out.get_mut(start..).unwrap_or_default();
    document.copy_to_slice(py, room)?;
    Ok(room)
}

/// msgspec's own functions, for what a struct holds.
struct Structs {
    astuple: Py<PyAny>,
    encode: Py<PyAny>,
}

impl Structs {
    fn of(py: Python<'_>) -> PyResult<&Self> {
        static KEPT: PyOnceLock<Structs> = PyOnceLock::new();
        KEPT.get_or_try_init(py, || {
            let encoder = py.import("msgspec.json")?.getattr("Encoder")?.call0()?;
            Ok(Self {
                astuple: py.import("msgspec.structs")?.getattr("astuple")?.unbind(),
                encode: encoder.getattr("encode")?.unbind(),
            })
        })
    }

    /// The values of an entry, in the order in which `DecisionEntry` lists them.
    fn fields<'py>(&self, entry: &Bound<'py, PyAny>) -> PyResult<[Bound<'py, PyAny>; FIELDS]> {
        let fields = self.astuple.bind(entry.py()).call1((entry,))?;
        let found: Vec<_> = fields.cast::<PyTuple>()?.iter().collect();
        found.try_into().map_err(|_| PyTypeError::new_err("an entry of other fields"))
    }

    fn encoded(&self, out: &mut Vec<u8>, before: &[u8], value: &Bound<'_, PyAny>) -> PyResult<()> {
        let bytes = self.encode.bind(value.py()).call1((value,))?;
        out.extend_from_slice(before);
        out.extend_from_slice(bytes.cast::<PyBytes>()?.as_bytes());
        Ok(())
    }
}

/// Whether a decision document says permit. Anything unreadable counts as one: it is followed up.
fn permits(decision: &[u8]) -> bool {
    struct Effect(bool);

    impl<'de> Deserialize<'de> for Effect {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(Reader)
        }
    }

    struct Reader;

    impl<'de> Visitor<'de> for Reader {
        type Value = Effect;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a decision document")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Effect, A::Error> {
            let mut found = None;
            while let Some(key) = fields.next_key::<Cow<'de, str>>()? {
                if key == "effect" {
                    found = Some(fields.next_value::<Cow<'de, str>>()? == "permit");
                } else {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
            Ok(Effect(found.unwrap_or(true)))
        }
    }

    serde_json::from_slice::<Effect>(decision).map_or(true, |effect| effect.0)
}
