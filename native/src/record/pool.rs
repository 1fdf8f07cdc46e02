//! Random bytes in large pieces.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

const PIECE: usize = 16 * 1024;
/// How many forks lie behind this process: a child must not hand out what its parent drew.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// The child of a fork calls this (os.register_at_fork).
#[pyfunction]
pub fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

#[derive(Default)]
struct Drawn {
    bytes: Vec<u8>,
    at: usize,
    forks: u64,
}

impl Drawn {
    /// Whether there were enough. What is handed out is wiped here.
    fn give(&mut self, out: &mut [u8]) -> bool {
        if self.forks != FORKS.load(Ordering::Relaxed) {
            return false;
        }
        let end = self.at.saturating_add(out.len());
        let Some(piece) = self.bytes.get_mut(self.at..end) else { return false };
        out.copy_from_slice(piece);
        piece.fill(0);
        self.at = end;
        true
    }
}

/// Random bytes, drawn from the source in large pieces: one call for many salts. Each byte is handed out once, also
/// where several threads ask, and none of them again in a forked child.
///
/// source: gives as many bytes as it is asked for; os.urandom where there is none.
#[pyclass(frozen, module = "sidecar._native")]
pub struct RandomPool {
    source: Py<PyAny>,
    drawn: Mutex<Drawn>,
}

#[pymethods]
impl RandomPool {
    #[new]
    #[pyo3(signature = (source = None))]
    fn new(py: Python<'_>, source: Option<Py<PyAny>>) -> PyResult<Self> {
        let source = match source {
            Some(source) => source,
            None => py.import("os")?.getattr("urandom")?.unbind(),
        };
        Ok(Self { source, drawn: Mutex::default() })
    }

    /// `size` fresh bytes.
    fn take<'py>(&self, py: Python<'py>, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        PyBytes::new_with(py, size, |out| self.fill(py, out))
    }
}

impl RandomPool {
    /// Fill `out` with fresh bytes. Raises what the source raises.
    pub fn fill(&self, py: Python<'_>, out: &mut [u8]) -> PyResult<()> {
        if self.drawn().give(out) {
            return Ok(());
        }
        // The lock is not held while Python runs: another thread may be at it meanwhile, and draws for itself.
        let forks = FORKS.load(Ordering::Relaxed);
        let size = PIECE.max(out.len());
        let fresh: Vec<u8> = self.source.call1(py, (size,))?.extract(py)?;
        if fresh.len() != size {
            return Err(PyValueError::new_err(format!("the source gave {} of {size} bytes", fresh.len())));
        }
        let mut fresh = Drawn { bytes: fresh, at: 0, forks };
        if !fresh.give(out) {
            return Err(PyValueError::new_err("this process was forked while it drew random bytes"));
        }
        *self.drawn() = fresh;
        Ok(())
    }

    fn drawn(&self) -> MutexGuard<'_, Drawn> {
        // No code that holds the lock panics; were it to, what was handed out is already behind `at`.
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
