//! What the record of a decision says whichever call it is, written out once.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString, PyTuple};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::text::string;

/// About what stands in a form beside its documents.
const ROOM: usize = 512;

/// What the record of a decision says whichever call it is: the same question, the same answer, the same revisions.
///
/// Keywords: phase, service, method, door, level, engine: texts; policy: a `PolicyRef`; directory, index: texts or None;
/// input, decision: the documents' exact bytes; obligations: a tuple of `ObligationMet`. `level` is what must be reached
/// before the message goes on. `permits`: whether the decision document says so; one that cannot be read counts as a
/// permit, since it is followed up.
///
/// It never changes: whoever decides the same again may keep one and use it again. Its part of a record's body is written
/// here, once, as `record.encode_body` writes it. It keeps the documents' bytes, not the objects, so that what a document
/// hangs on may hang on the form. Raises TypeError for other types, UnicodeEncodeError for text that is none (a lone
/// surrogate).
#[pyclass(frozen, eq, module = "sidecar._native")]
pub struct DecisionForm {
    #[pyo3(get)]
    phase: Py<PyString>,
    #[pyo3(get)]
    service: Py<PyString>,
    #[pyo3(get)]
    method: Py<PyString>,
    #[pyo3(get)]
    door: Py<PyString>,
    #[pyo3(get)]
    policy: Py<PyAny>,
    #[pyo3(get)]
    directory: Option<Py<PyString>>,
    #[pyo3(get)]
    index: Option<Py<PyString>>,
    #[pyo3(get)]
    obligations: Py<PyTuple>,
    #[pyo3(get)]
    level: Py<PyString>,
    #[pyo3(get)]
    engine: Py<PyString>,
    #[pyo3(get)]
    permits: bool,
    written: Written,
}

/// The pieces of a body: those before the trace, before the data subjects, and before `eval_us`.
#[derive(PartialEq)]
pub struct Written {
    pub before_trace: Box<[u8]>,
    pub before_subjects: Box<[u8]>,
    pub before_figures: Box<[u8]>,
    /// Where the documents stand in the second.
    input: Range<usize>,
    decision: Range<usize>,
}

/// Equal forms write equal records.
impl PartialEq for DecisionForm {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

#[pymethods]
impl DecisionForm {
    #[new]
    #[pyo3(signature = (*, phase, service, method, door, policy, directory, index, input, decision, obligations, level, engine))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        phase: Bound<'_, PyString>,
        service: Bound<'_, PyString>,
        method: Bound<'_, PyString>,
        door: Bound<'_, PyString>,
        policy: Bound<'_, PyAny>,
        directory: Option<Bound<'_, PyString>>,
        index: Option<Bound<'_, PyString>>,
        input: Bound<'_, PyAny>,
        decision: Bound<'_, PyAny>,
        obligations: Bound<'_, PyTuple>,
        level: Bound<'_, PyString>,
        engine: Bound<'_, PyString>,
    ) -> PyResult<Self> {
        let mut first = Vec::with_capacity(ROOM);
        text(&mut first, b",\"type\":\"decision\",\"phase\":", &phase)?;
        text(&mut first, b",\"service\":", &service)?;
        text(&mut first, b",\"method\":", &method)?;
        text(&mut first, b",\"door\":", &door)?;
        first.extend_from_slice(b",\"trace\":");

        let (asked, answered) = (PyBuffer::<u8>::get(&input)?, PyBuffer::<u8>::get(&decision)?);
        let documents = asked.item_count().saturating_add(answered.item_count());
        let mut second = Vec::with_capacity(ROOM.saturating_add(documents));
        encoded(&mut second, b",\"policy\":", &policy)?;
        maybe(&mut second, b",\"directory\":", directory.as_ref())?;
        maybe(&mut second, b",\"index\":", index.as_ref())?;
        let asked = document(py, &mut second, b",\"input\":", &asked)?;
        let answered = document(py, &mut second, b",\"decision\":", &answered)?;
        let permits = permits(second.get(answered.clone()).unwrap_or_default());
        second.extend_from_slice(b",\"subjects\":[");

        let mut third = Vec::with_capacity(ROOM);
        encoded(&mut third, b"],\"obligations\":", obligations.as_any())?;
        text(&mut third, b",\"level\":", &level)?;
        text(&mut third, b",\"engine\":", &engine)?;
        third.extend_from_slice(b",\"eval_us\":");

        Ok(Self {
            phase: phase.unbind(),
            service: service.unbind(),
            method: method.unbind(),
            door: door.unbind(),
            policy: policy.unbind(),
            directory: directory.map(Bound::unbind),
            index: index.map(Bound::unbind),
            obligations: obligations.unbind(),
            level: level.unbind(),
            engine: engine.unbind(),
            permits,
            written: Written {
                before_trace: first.into_boxed_slice(),
                before_subjects: second.into_boxed_slice(),
                before_figures: third.into_boxed_slice(),
                input: asked,
                decision: answered,
            },
        })
    }

    /// The input document's bytes.
    #[getter]
    fn input<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.written.document(py, &self.written.input)
    }

    /// The decision document's bytes.
    #[getter]
    fn decision<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.written.document(py, &self.written.decision)
    }
}

impl Written {
    fn document<'py>(&self, py: Python<'py>, place: &Range<usize>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.before_subjects.get(place.clone()).unwrap_or_default())
    }
}

impl DecisionForm {
    pub fn written(&self) -> &Written {
        &self.written
    }

    pub fn permits(&self) -> bool {
        self.permits
    }
}

fn text(out: &mut Vec<u8>, before: &[u8], value: &Bound<'_, PyString>) -> PyResult<()> {
    out.extend_from_slice(before);
    string(out, value.to_str()?);
    Ok(())
}

fn maybe(out: &mut Vec<u8>, before: &[u8], value: Option<&Bound<'_, PyString>>) -> PyResult<()> {
    match value {
        Some(value) => text(out, before, value),
        None => {
            out.extend_from_slice(before);
            out.extend_from_slice(b"null");
            Ok(())
        }
    }
}

/// Add a document as it is, and say where it stands.
fn document(py: Python<'_>, out: &mut Vec<u8>, before: &[u8], document: &PyBuffer<u8>) -> PyResult<Range<usize>> {
    out.extend_from_slice(before);
    let start = out.len();
    out.resize(start.saturating_add(document.item_count()), 0);
    let room = out.get_mut(start..).unwrap_or_default();
    document.copy_to_slice(py, room)?;
    Ok(start..out.len())
}

/// Add what msgspec, which `record` encodes with, makes of a struct.
pub fn encoded(out: &mut Vec<u8>, before: &[u8], value: &Bound<'_, PyAny>) -> PyResult<()> {
    static ENCODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    let encode = ENCODE.get_or_try_init(py, || {
        Ok::<_, PyErr>(py.import("msgspec.json")?.getattr("Encoder")?.call0()?.getattr("encode")?.unbind())
    })?;
    let bytes = encode.bind(py).call1((value,))?;
    out.extend_from_slice(before);
    out.extend_from_slice(bytes.cast::<PyBytes>()?.as_bytes());
    Ok(())
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
