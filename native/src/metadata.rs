//! The walk through a caller's metadata. What is listened to says `sidecar/enforcement/metadata.py`.

use std::collections::HashSet;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

/// Which of a caller's metadata is listened to.
///
/// dropped: keys; internal: how the keys begin that are a transport's own; ours: what stands in every key that only the
/// sidecar may say, but for `inputs`; identity: the key of which an empty value stays where a value cannot be carried.
#[pyclass(frozen, module = "sidecar._native")]
pub struct Listener {
    dropped: HashSet<String>,
    internal: String,
    ours: String,
    inputs: HashSet<String>,
    identity: String,
}

impl Listener {
    fn hears(&self, key: &str) -> bool {
        !self.dropped.contains(key)
            && !key.starts_with(self.internal.as_str())
            && (!key.contains(self.ours.as_str()) || self.inputs.contains(key))
    }
}

/// Whether gRPC can carry it: bytes, or text of printable ASCII.
fn carried(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    if value.is_instance_of::<PyBytes>() {
        return Ok(true);
    }
    // What is no Unicode has no bytes here.
    Ok(value.cast::<PyString>()?.to_str().is_ok_and(|text| text.bytes().all(|byte| matches!(byte, b' '..=b'~'))))
}

#[pymethods]
impl Listener {
    #[new]
    fn new(
        dropped: HashSet<String>,
        internal: String,
        ours: String,
        inputs: HashSet<String>,
        identity: String,
    ) -> Self {
        Self { dropped, internal, ours, inputs, identity }
    }

    /// The (key, value) pairs that are listened to, in order.
    fn heard<'py>(&self, pairs: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
        let py = pairs.py();
        let mut heard = Vec::with_capacity(16);
        for pair in pairs.try_iter()? {
            let pair = pair?;
            let (name, value): (Bound<'_, PyString>, Bound<'_, PyAny>) = pair.extract()?;
            let Ok(key) = name.to_str() else { continue };
            if !self.hears(key) {
                continue;
            }
            if carried(&value)? {
                heard.push(pair);
            } else if key == self.identity {
                heard.push((&name, "").into_pyobject(py)?.into_any());
            }
        }
        PyTuple::new(py, heard)
    }
}
