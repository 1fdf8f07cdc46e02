//! The body of a decision, and the openings of the data subjects it names.

use hmac::{Hmac, KeyInit, Mac};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};
use sha2::Sha256;

use super::form::DecisionForm;
use super::pool::RandomPool;
use super::text::{number, stamp, string};
use super::{base64, sha256, RecordFormatError, SALT_SIZE};

const MAX_BODY: usize = 64 * 1024;
const MAX_SUBJECTS: usize = 500;
/// What a data subject takes in a body and in openings, about.
const SUBJECT_ROOM: usize = 256;

/// Names data subjects under one period's key: period: the key's name; key: its bytes.
///
/// A pseudonym is that of `record.pseudonym`. What the key makes of itself is worked out once, for the whole period.
#[pyclass(frozen, module = "sidecar._native")]
pub struct Pseudonyms {
    keyed: Hmac<Sha256>,
    /// What stands behind a reference: `","period":…}`.
    period: Vec<u8>,
}

#[pymethods]
impl Pseudonyms {
    #[new]
    fn new(period: &str, key: &[u8]) -> PyResult<Self> {
        let keyed = Hmac::<Sha256>::new_from_slice(key)
            .map_err(|_| PyValueError::new_err("the period's key cannot be used"))?;
        let mut behind = b"\",\"period\":".to_vec();
        string(&mut behind, period);
        behind.push(b'}');
        Ok(Self { keyed, period: behind })
    }
}

/// What a `DecisionEntry` holds that stands in a record.
pub struct Entry<'py> {
    form: Bound<'py, DecisionForm>,
    call_id: Bound<'py, PyString>,
    trace: Bound<'py, PyAny>,
    eval_us: i64,
    subjects: Bound<'py, PyAny>,
}

impl<'py> Entry<'py> {
    pub fn read(entry: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = entry.py();
        Ok(Self {
            form: entry.getattr(intern!(py, "form"))?.cast_into()?,
            call_id: entry.getattr(intern!(py, "call_id"))?.cast_into()?,
            trace: entry.getattr(intern!(py, "trace"))?,
            eval_us: entry.getattr(intern!(py, "eval_us"))?.extract()?,
            subjects: entry.getattr(intern!(py, "subjects"))?,
        })
    }

    /// The whole of it, in one part.
    pub fn decided(&self) -> PyResult<Decided<'_, 'py>> {
        Ok(Decided {
            form: self.form.get(),
            call_id: self.call_id.to_str()?,
            trace: &self.trace,
            eval_us: self.eval_us,
            subjects: &self.subjects,
            part: 1,
            parts: 1,
        })
    }
}

/// One part of a decision.
pub struct Decided<'a, 'py> {
    form: &'a DecisionForm,
    pub call_id: &'a str,
    trace: &'a Bound<'py, PyAny>,
    eval_us: i64,
    /// (kind, id, class) of each.
    subjects: &'a Bound<'py, PyAny>,
    part: u32,
    parts: u32,
}

/// Where the references of data subjects come from.
pub struct Naming<'a> {
    pub key: Option<&'a Pseudonyms>,
    pub random: &'a RandomPool,
}

impl Decided<'_, '_> {
    /// Room that body and openings take, about. RecordFormatError beyond 500 data subjects.
    pub fn room(&self) -> PyResult<usize> {
        let (form, count) = (self.form.written(), self.subjects.len()?);
        if count > MAX_SUBJECTS {
            let why = format!("{count} data subjects; at most {MAX_SUBJECTS} in one record");
            return Err(RecordFormatError::new_err(why));
        }
        let known = form.before_trace.len().saturating_add(form.before_subjects.len());
        Ok(known.saturating_add(form.before_figures.len()).saturating_add(count.saturating_mul(SUBJECT_ROOM)))
    }

    /// Add the body, and the openings if there are data subjects. RecordFormatError beyond 64 kB.
    pub fn write(&self, out: &mut Vec<u8>, openings: &mut Vec<u8>, naming: &Naming<'_>) -> PyResult<()> {
        let (start, form) = (out.len(), self.form.written());
        out.extend_from_slice(b"{\"v\":1,\"call_id\":");
        string(out, self.call_id);
        out.extend_from_slice(&form.before_trace);
        trace(out, self.trace)?;
        out.extend_from_slice(&form.before_subjects);
        self.name(out, openings, naming)?;
        out.extend_from_slice(&form.before_figures);
        number(out, self.eval_us);
        out.extend_from_slice(b",\"part\":");
        number(out, self.part);
        out.extend_from_slice(b",\"parts\":");
        number(out, self.parts);
        out.push(b'}');
        fits(out.len().saturating_sub(start))
    }

    /// The references of the data subjects, and their openings.
    fn name(&self, out: &mut Vec<u8>, openings: &mut Vec<u8>, naming: &Naming<'_>) -> PyResult<()> {
        let py = self.subjects.py();
        let mut salt = [0; SALT_SIZE];
        let mut before: &[u8] = b"[";
        for subject in self.subjects.try_iter()? {
            let subject = subject?;
            let subject = subject.cast::<PyTuple>()?;
            let (kind, id, class) = (subject.get_item(0)?, subject.get_item(1)?, subject.get_item(2)?);
            let Some(key) = naming.key else { return Err(PyValueError::new_err("data subjects need a period's key")) };
            naming.random.fill(py, &mut salt)?;
            let mut mac = key.keyed.clone();
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
            out.extend_from_slice(if before == b"[" { b"{\"class\":" } else { b",{\"class\":" });
            string(out, class.cast::<PyString>()?.to_str()?);
            out.extend_from_slice(b",\"ref\":\"");
            base64(out, &sha256(&[&salt, &pseudonym]));
            out.extend_from_slice(&key.period);
            before = b",";
        }
        if before == b"," {
            openings.push(b']');
        }
        Ok(())
    }
}

/// Whether a body of so many bytes may be written.
pub fn fits(size: usize) -> PyResult<()> {
    if size > MAX_BODY {
        return Err(RecordFormatError::new_err(format!("body of {size} bytes; at most {MAX_BODY}")));
    }
    Ok(())
}

fn trace(out: &mut Vec<u8>, trace: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = trace.py();
    out.extend_from_slice(b"{\"trace_id\":");
    maybe(out, &trace.getattr(intern!(py, "trace_id"))?)?;
    out.extend_from_slice(b",\"span_id\":");
    maybe(out, &trace.getattr(intern!(py, "span_id"))?)?;
    out.extend_from_slice(b",\"from\":");
    string(out, trace.getattr(intern!(py, "from_"))?.cast::<PyString>()?.to_str()?);
    out.push(b'}');
    Ok(())
}

fn maybe(out: &mut Vec<u8>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if value.is_none() {
        out.extend_from_slice(b"null");
    } else {
        string(out, value.cast::<PyString>()?.to_str()?);
    }
    Ok(())
}

/// (type, time, call_id, body, plain openings, whether it permits).
type Drafted<'py> =
    (Bound<'py, PyString>, String, Bound<'py, PyString>, Bound<'py, PyBytes>, Bound<'py, PyBytes>, bool);

/// A `Draft` of one part of a decision; its openings are empty without data subjects.
///
/// entry: a `DecisionEntry`; subjects: those of its data subjects that are in this part; key: for them; now: unix seconds;
/// random: where the salts come from. Raises RecordFormatError beyond 64 kB.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn decision_part<'py>(
    py: Python<'py>,
    entry: &Bound<'py, PyAny>,
    subjects: &Bound<'py, PyAny>,
    key: Option<&Bound<'py, Pseudonyms>>,
    now: f64,
    random: &Bound<'py, RandomPool>,
    part: u32,
    parts: u32,
) -> PyResult<Drafted<'py>> {
    let entry = Entry::read(entry)?;
    let decided = Decided { subjects, part, parts, ..entry.decided()? };
    let mut body = Vec::with_capacity(decided.room()?);
    let mut openings = Vec::new();
    decided.write(&mut body, &mut openings, &Naming { key: key.map(Bound::get), random: random.get() })?;
    let permits = entry.form.get().permits();
    let (body, openings) = (PyBytes::new(py, &body), PyBytes::new(py, &openings));
    Ok((intern!(py, "decision").clone(), stamp(now)?, entry.call_id.clone(), body, openings, permits))
}
