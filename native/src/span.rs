//! The time of calls: who each one is to traces, when its stages end, and how long each stage takes over all calls.
//!
//! `sidecar/observability/metrics.py` says what is counted; `tests/unit/test_stage_times.py` holds both equal.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::record::RandomPool;

const TRACE: usize = 16;
const SPAN: usize = 8;
const UUID: usize = 16;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// No code that holds one of these locks panics.
fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from(DIGITS.get(usize::from(digit)).copied().unwrap_or(b'0')));
        }
    }
}

fn hex<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    let mut text = String::with_capacity(bytes.len() * 2);
    push_hex(&mut text, bytes);
    PyString::new(py, &text)
}

/// Seconds on the clock of `time.perf_counter`: read there once, and from then on beside it.
enum Clock {
    Beside { began: Instant, at: f64 },
    Given(Py<PyAny>),
}

impl Clock {
    fn new(py: Python<'_>, given: Option<Py<PyAny>>) -> PyResult<Self> {
        Ok(match given {
            Some(clock) => Self::Given(clock),
            None => {
                let at = py.import("time")?.call_method0("perf_counter")?.extract()?;
                Self::Beside { began: Instant::now(), at }
            }
        })
    }

    fn now(&self, py: Python<'_>) -> PyResult<f64> {
        match self {
            Self::Beside { began, at } => Ok(at + began.elapsed().as_secs_f64()),
            Self::Given(clock) => clock.call0(py)?.extract(py),
        }
    }
}

struct Stage {
    name: String,
    buckets: Vec<u64>,
    total: f64,
}

/// How long stages take, over all calls, and where calls begin.
///
/// edges: upper edges of the buckets in seconds, ascending. random: where ids come from. clock: seconds;
/// `time.perf_counter` where there is none.
#[pyclass(frozen, module = "sidecar._native")]
pub struct StageTimes {
    edges: Vec<f64>,
    random: Py<RandomPool>,
    clock: Clock,
    stages: Mutex<Vec<Stage>>,
}

#[pymethods]
impl StageTimes {
    #[new]
    #[pyo3(signature = (edges, random, clock = None))]
    fn new(py: Python<'_>, edges: Vec<f64>, random: Py<RandomPool>, clock: Option<Py<PyAny>>) -> PyResult<Self> {
        Ok(Self { edges, random, clock: Clock::new(py, clock)?, stages: Mutex::default() })
    }

    /// One passage of a stage.
    fn add(&self, stage: &str, seconds: f64) {
        let mut stages = locked(&self.stages);
        let found = match stages.iter().position(|one| one.name == stage) {
            Some(at) => stages.get_mut(at),
            None => {
                stages.push(Stage { name: stage.to_string(), buckets: vec![0; self.edges.len() + 1], total: 0.0 });
                stages.last_mut()
            }
        };
        let bucket = self.edges.partition_point(|edge| *edge < seconds);
        if let Some(stage) = found {
            stage.total += seconds;
            if let Some(count) = stage.buckets.get_mut(bucket) {
                *count += 1;
            }
        }
    }

    /// (stage, passages by bucket, seconds of them all), as of now.
    fn read(&self) -> Vec<(String, Vec<u64>, f64)> {
        locked(&self.stages).iter().map(|one| (one.name.clone(), one.buckets.clone(), one.total)).collect()
    }

    /// A call begins. trace: that of its caller, where there is one; otherwise it is the first of a trace of its own.
    #[pyo3(signature = (method, stats, trace = None))]
    fn begin(
        slf: &Bound<'_, Self>,
        method: Py<PyString>,
        stats: Py<PyAny>,
        trace: Option<Py<PyString>>,
    ) -> PyResult<CallSpan> {
        let py = slf.py();
        let mut drawn = [0; TRACE + SPAN];
        let (fresh, span) = drawn.split_at_mut(TRACE);
        slf.get().random.get().fill(py, span)?;
        let (trace, from) = match trace {
            Some(trace) => (trace, intern!(py, "caller")),
            None => {
                slf.get().random.get().fill(py, fresh)?;
                (hex(py, fresh).unbind(), intern!(py, "sidecar"))
            }
        };
        let (span, from) = (hex(py, span).unbind(), from.clone().unbind());
        CallSpan::new(py, method, trace, span, from, stats, slf.clone().unbind(), false)
    }
}

struct At {
    /// When the last stage ended, or waiting did.
    since: f64,
    waited: f64,
}

/// One call as operators see it. `traceparent` goes to the upstream; the rest into the record.
///
/// method: "package.Service/Method". stats: a `CallStats`, told of the call's end and of events. `started`: on the clock of
/// `time.perf_counter`.
#[pyclass(frozen, subclass, module = "sidecar._native")]
pub struct CallSpan {
    #[pyo3(get)]
    method: Py<PyString>,
    #[pyo3(get)]
    trace_id: Py<PyString>,
    #[pyo3(get)]
    span_id: Py<PyString>,
    #[pyo3(get)]
    from_: Py<PyString>,
    /// Where what happens in this call is counted.
    #[pyo3(get)]
    stats: Py<PyAny>,
    #[pyo3(get)]
    started: f64,
    sampled: bool,
    times: Py<StageTimes>,
    at: Mutex<At>,
}

#[pymethods]
impl CallSpan {
    #[new]
    #[pyo3(signature = (method, trace_id, span_id, from_, stats, times, sampled = false))]
    #[allow(clippy::too_many_arguments)] // what a call is to traces, and where it is counted
    fn new(
        py: Python<'_>,
        method: Py<PyString>,
        trace_id: Py<PyString>,
        span_id: Py<PyString>,
        from_: Py<PyString>,
        stats: Py<PyAny>,
        times: Py<StageTimes>,
        sampled: bool,
    ) -> PyResult<Self> {
        let started = times.get().clock.now(py)?;
        let at = Mutex::new(At { since: started, waited: 0.0 });
        Ok(Self { method, trace_id, span_id, from_, stats, started, sampled, times, at })
    }

    /// What the upstream is told: this call's span is its parent.
    #[getter]
    fn traceparent(&self, py: Python<'_>) -> PyResult<String> {
        let (trace, span) = (self.trace_id.bind(py).to_str()?, self.span_id.bind(py).to_str()?);
        let mut text = String::with_capacity(55);
        for part in ["00-", trace, "-", span, if self.sampled { "-01" } else { "-00" }] {
            text.push_str(part);
        }
        Ok(text)
    }

    /// When the last stage ended, or waiting did.
    #[getter]
    fn since(&self) -> f64 {
        locked(&self.at).since
    }

    /// Work on a message begins: what has passed since the last stage was waiting, and counts for none.
    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        let now = self.times.get().clock.now(py)?;
        locked(&self.at).since = now;
        Ok(())
    }

    /// The caller, who has had an answer, asks or tells more: the time between is theirs, not this call's.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        let now = self.times.get().clock.now(py)?;
        let mut at = locked(&self.at);
        at.waited += now - at.since;
        at.since = now;
        Ok(())
    }

    /// The stage `name` ends here; it began where the one before it ended.
    fn stage(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let times = self.times.get();
        let now = times.clock.now(py)?;
        let began = std::mem::replace(&mut locked(&self.at).since, now);
        times.add(name, now - began);
        Ok(())
    }

    /// Count something that happened in this call.
    #[pyo3(signature = (name, detail = None))]
    fn event(&self, py: Python<'_>, name: &Bound<'_, PyString>, detail: Option<&Bound<'_, PyString>>) -> PyResult<()> {
        match detail {
            Some(detail) => self.stats.call_method1(py, intern!(py, "event"), (name, detail)),
            None => self.stats.call_method1(py, intern!(py, "event"), (name,)),
        }
        .map(drop)
    }

    /// The call is over. status: a gRPC status name; reason: the first reason code or empty.
    fn end(
        &self,
        py: Python<'_>,
        status: &Bound<'_, PyString>,
        effect: &Bound<'_, PyString>,
        reason: &Bound<'_, PyString>,
    ) -> PyResult<()> {
        let seconds = {
            let at = locked(&self.at);
            at.since - self.started - at.waited
        };
        self.stats.call_method1(py, intern!(py, "count"), (&self.method, effect, reason, status, seconds)).map(drop)
    }
}

/// Makes ids of calls: UUIDs version 7 (RFC 9562, section 5.7) in text form. clock: unix seconds.
#[pyclass(frozen, module = "sidecar._native")]
pub struct CallIds {
    clock: Py<PyAny>,
    random: Py<RandomPool>,
}

#[pymethods]
impl CallIds {
    #[new]
    fn new(clock: Py<PyAny>, random: Py<RandomPool>) -> Self {
        Self { clock, random }
    }

    /// One more, of which all but time, version and variant is random.
    fn __call__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        const TIME: usize = 6;
        let seconds: f64 = self.clock.call0(py)?.extract(py)?;
        let millis = ((seconds * 1000.0) as u64).to_be_bytes();
        let mut id = [0; UUID];
        let (time, random) = id.split_at_mut(TIME);
        time.copy_from_slice(millis.get(2..).unwrap_or_default());
        self.random.get().fill(py, random)?;
        let [_, _, _, _, _, _, version, _, variant, ..] = &mut id;
        *version = 0x70 | (*version & 0x0f);
        *variant = 0x80 | (*variant & 0x3f);
        let mut text = String::with_capacity(36);
        let mut rest: &[u8] = &id;
        for size in [4, 2, 2, 2, 6] {
            let (part, behind) = rest.split_at(size);
            push_hex(&mut text, part);
            if !behind.is_empty() {
                text.push('-');
            }
            rest = behind;
        }
        Ok(PyString::new(py, &text))
    }
}
