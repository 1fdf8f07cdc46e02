//! The Python module `sidecar._native`: regorus, loaded only with policies on which it
//! answers as OPA does, and bounded in time and memory.

use std::time::{Duration, Instant};

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes};
use regorus::utils::limits::set_fallback_execution_timer_config;
use regorus::Value;

mod body;
mod bounds;
mod builtins;
mod calls;
mod convert;
mod covered;
mod delivery;
mod graph;
mod load;
mod memory;
mod metadata;
mod model;
mod nulls;
mod outline;
mod patterns;
mod plan;
mod problem;
mod record;
mod refuse;
mod run;
mod scan;
mod span;
mod wire;

use load::By;
use problem::Problem;
use run::{caught, quiet_panics, run, Asked, Failure, Limits};

create_exception!(_native, EngineError, PyException, "The engine did not do what was asked.");
create_exception!(_native, LoadError, EngineError, "The bundle must not run here; `problems` lists why and where.");
create_exception!(
    _native,
    EvaluationError,
    EngineError,
    "No answer: rules in conflict, a failed built-in, an answer that is no JSON."
);
create_exception!(
    _native,
    DeadlineExceeded,
    EvaluationError,
    "No answer in time. The next evaluation is not affected."
);
create_exception!(
    _native,
    MemoryExceeded,
    EvaluationError,
    "No answer in the memory it may take. The next evaluation is not affected."
);
create_exception!(_native, Undefined, EvaluationError, "The entrypoint has no value for this input.");

/// Package, name, passed, error, microseconds.
type TestResult = (String, String, bool, Option<String>, u64);

/// Policies and data, compiled and immutable. Every method may be called from several threads at once.
///
/// modules: (name, source) pairs; data: a JSON object; entrypoint: a rule with one value;
/// nullable: the leaves of the input that may be null, as `input.a.b`, with `*` for any key or index;
/// coverage: keep which rows are evaluated, which slows evaluation down;
/// memory_bytes: what an evaluation may take, beside policies and data, at least 1 MiB;
/// interpreted: evaluate by regorus' interpreter also where a plan is possible, which is slower and answers the same.
/// Raises LoadError with every problem found, ValueError for a limit that is none.
#[pyclass(frozen, module = "sidecar._native")]
struct Engine {
    loaded: load::Loaded,
    entrypoint: String,
    limits: Limits,
}

/// Below this, ordinary evaluations would meet the limit.
const LEAST_MEMORY: u64 = 1 << 20;

fn seconds(value: f64) -> PyResult<Duration> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(PyValueError::new_err("a deadline is a positive number of seconds")),
    }
}

impl Engine {
    /// The entrypoint, asked about a document that was read.
    fn about(&self, document: Value) -> Asked<'_> {
        match &self.loaded.plan {
            Some(plan) => Asked::Plan(plan, plan.input.of(&document)),
            None => Asked::Rule(&self.entrypoint, document),
        }
    }

    /// The same, about one in JSON, of which a plan keeps what it reads.
    fn about_json(&self, document: &[u8]) -> Result<Asked<'_>, String> {
        Ok(match &self.loaded.plan {
            Some(plan) => Asked::Plan(plan, plan.input.read(document)?),
            None => Asked::Rule(&self.entrypoint, convert::from_json(document)?),
        })
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (modules, data, entrypoint = "data.sidecar.decision", deadline_seconds = 0.05, nullable = Vec::new(), coverage = false, memory_bytes = 64 << 20, interpreted = false))]
    fn new(
        py: Python<'_>,
        modules: Vec<(String, String)>,
        data: &[u8],
        entrypoint: &str,
        deadline_seconds: f64,
        nullable: Vec<String>,
        coverage: bool,
        memory_bytes: u64,
        interpreted: bool,
    ) -> PyResult<Self> {
        let limits = Limits { time: seconds(deadline_seconds)?, memory: memory_bytes };
        if memory_bytes < LEAST_MEMORY {
            return Err(PyValueError::new_err("an evaluation may take at least 1 MiB"));
        }
        let load = || load::load(&modules, data, entrypoint, &nullable, By { interpreter: interpreted, coverage });
        let loaded = py.detach(|| memory::unlimited(|| caught(load)));
        match loaded {
            Some(Ok(loaded)) => Ok(Self { loaded, entrypoint: entrypoint.to_string(), limits }),
            Some(Err(problems)) => Err(problem::load_error(py, &problems)?),
            None => Err(problem::load_error(
                py,
                &[Problem::file("bundle", 0, 0, "engine", "the engine failed on this bundle")],
            )?),
        }
    }

    /// Whether the entrypoint is answered from a plan; otherwise by the interpreter.
    #[getter]
    fn planned(&self) -> bool {
        self.loaded.plan.is_some()
    }

    /// The value of the entrypoint; sets become sorted lists.
    ///
    /// The document is made of None, bool, int, str, list, tuple and dict with text keys. Raises
    /// TypeError for other types, ValueError beyond 64 bits or 64 levels, and EvaluationError.
    fn evaluate<'py>(&self, py: Python<'py>, document: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let input = convert::from_python(document, 0)?;
        let value = py.detach(|| run(&self.loaded, &self.about(input), self.limits))?;
        convert::to_python(py, &value)
    }

    /// The same from JSON to JSON: what is decided is, byte for byte, what can be recorded.
    fn evaluate_json<'py>(&self, py: Python<'py>, document: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let answer = py.detach(|| -> Result<_, PyErr> {
            let asked = self.about_json(document).map_err(PyValueError::new_err)?;
            let value = run(&self.loaded, &asked, self.limits)?;
            serde_json::to_vec(&value).map_err(|e| EvaluationError::new_err(e.to_string()))
        })?;
        Ok(PyBytes::new(py, &answer))
    }

    /// Run every `test_…` rule of the packages that start with `prefix`.
    ///
    /// Returns (package, name, passed, error, microseconds); a test passes when it is true.
    #[pyo3(signature = (prefix = "", deadline_seconds = 1.0))]
    fn run_tests(&self, py: Python<'_>, prefix: &str, deadline_seconds: f64) -> PyResult<Vec<TestResult>> {
        let limits = Limits { time: seconds(deadline_seconds)?, ..self.limits };
        let mut results = Vec::new();
        for (package, name) in &self.loaded.tests {
            let package = package.join(".");
            if !package.starts_with(prefix) {
                continue;
            }
            let rule = format!("data.{package}.{name}");
            let start = Instant::now();
            let outcome = py.detach(|| run(&self.loaded, &Asked::Rule(&rule, Value::new_object()), limits));
            let (passed, error) = match outcome {
                Ok(Value::Bool(true)) => (true, None),
                Ok(_) | Err(Failure::Undefined) => (false, None),
                Err(Failure::Late) => (false, Some("took longer than the deadline".to_string())),
                Err(Failure::Wrong(text) | Failure::Large(text)) => (false, Some(text)),
            };
            results.push((
                package,
                name.clone(),
                passed,
                error,
                u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
            ));
        }
        memory::give_back();
        Ok(results)
    }

    /// (file, rows evaluated, rows not evaluated) for each module in order, over all evaluations so far.
    ///
    /// Rows count from 1; rows without an expression are in neither list. Empty without `coverage`.
    fn covered(&self) -> Vec<covered::File> {
        self.loaded.covered.as_ref().map(covered::Covered::files).unwrap_or_default()
    }

    /// Forget which rows were evaluated.
    fn clear_covered(&self) {
        if let Some(covered) = &self.loaded.covered {
            covered.clear();
        }
    }
}

/// What stands in these modules, also in those the loader refuses, as JSON.
///
/// `modules`: per module `file`, `package`, `rules` (name, kind, test, row, end_row, bodies of statements), and what it
/// mentions: `inputs` and `data` (row, path; a computed key is `*`), `calls` (row, name), `pairs` (row, key, value: items
/// of objects whose key and value are literal strings). `problems`: modules that cannot be parsed (file, row, col, code,
/// message). Aliases of imports are written out; rows and columns count from 1.
#[pyfunction]
#[pyo3(name = "outline")]
fn outline_of<'py>(py: Python<'py>, modules: Vec<(String, String)>) -> PyResult<Bound<'py, PyBytes>> {
    let text = py.detach(|| memory::unlimited(|| caught(|| outline::outline(&modules).to_string())));
    match text {
        Some(text) => Ok(PyBytes::new(py, text.as_bytes())),
        None => Err(EngineError::new_err("the parser failed on these modules")),
    }
}

/// The built-in functions and operators that a policy may use here, by OPA's names, sorted.
#[pyfunction]
fn builtins_accepted() -> Vec<&'static str> {
    let mut names: Vec<_> = calls::ALLOWED.iter().map(|builtin| builtin.name).collect();
    names.extend_from_slice(calls::OPERATORS);
    names.sort_unstable();
    names
}

/// What this engine can do, in OPA's format, for `opa check --capabilities`: JSON.
#[pyfunction]
fn capabilities<'py>(py: Python<'py>) -> Bound<'py, PyBytes> {
    PyBytes::new(py, include_bytes!("../capabilities.json"))
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    quiet_panics();
    // The limit for whatever in regorus would not carry an engine's own.
    set_fallback_execution_timer_config(Some(load::timer(Duration::from_secs(1))));
    module.add_class::<Engine>()?;
    module.add_function(wrap_pyfunction!(builtins_accepted, module)?)?;
    module.add_function(wrap_pyfunction!(capabilities, module)?)?;
    module.add_function(wrap_pyfunction!(outline_of, module)?)?;
    module.add_class::<wire::Shapes>()?;
    module.add_class::<wire::Rules>()?;
    module.add_class::<wire::Reading>()?;
    module.add_class::<delivery::Parcel>()?;
    module.add_function(wrap_pyfunction!(delivery::parcel, module)?)?;
    module.add_function(wrap_pyfunction!(delivery::range_root, module)?)?;
    module.add_class::<record::Framer>()?;
    module.add_class::<record::RandomPool>()?;
    module.add_class::<metadata::Listener>()?;
    module.add_class::<span::StageTimes>()?;
    module.add_class::<span::CallSpan>()?;
    module.add_class::<span::CallIds>()?;
    module.add_class::<record::DecisionForm>()?;
    module.add_class::<record::Pseudonyms>()?;
    module.add_function(wrap_pyfunction!(record::decision_part, module)?)?;
    module.add_function(wrap_pyfunction!(record::stamp, module)?)?;
    let child = [("after_in_child", wrap_pyfunction!(record::forked, module)?)].into_py_dict(py)?;
    py.import("os")?.call_method("register_at_fork", (), Some(&child))?;
    module.add("EngineError", py.get_type::<EngineError>())?;
    module.add("LoadError", py.get_type::<LoadError>())?;
    module.add("EvaluationError", py.get_type::<EvaluationError>())?;
    module.add("DeadlineExceeded", py.get_type::<DeadlineExceeded>())?;
    module.add("MemoryExceeded", py.get_type::<MemoryExceeded>())?;
    module.add("Undefined", py.get_type::<Undefined>())
}
