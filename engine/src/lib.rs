//! The Python module `sidecar.decision._engine`: regorus, loaded only with policies on which it
//! answers as OPA does, and bounded in time.

use std::cell::Cell;
use std::panic::{catch_unwind, set_hook, take_hook, AssertUnwindSafe};
use std::time::{Duration, Instant};

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use regorus::utils::limits::set_fallback_execution_timer_config;
use regorus::{LimitError, Value};

mod body;
mod builtins;
mod calls;
mod convert;
mod graph;
mod load;
mod model;
mod nulls;
mod patterns;
mod problem;
mod refuse;
mod scan;

create_exception!(_engine, EngineError, PyException);
create_exception!(_engine, LoadError, EngineError);
create_exception!(_engine, EvaluationError, EngineError);
create_exception!(_engine, DeadlineExceeded, EvaluationError);
create_exception!(_engine, Undefined, EvaluationError);

thread_local! {
    /// Set while a panic is caught and reported as an error: it needs no second report on stderr.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    QUIET.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work)).ok();
    QUIET.set(false);
    outcome
}

enum Failure {
    Late,
    Undefined,
    Wrong(String),
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Late => DeadlineExceeded::new_err("the evaluation took longer than the deadline"),
            Failure::Undefined => Undefined::new_err("the entrypoint is undefined for this input"),
            Failure::Wrong(text) => EvaluationError::new_err(text),
        }
    }
}

#[pyclass(frozen, module = "sidecar.decision._engine")]
struct Engine {
    loaded: load::Loaded,
    entrypoint: String,
    deadline: Duration,
}

impl Engine {
    /// Evaluate one rule on a fresh copy: nothing of an evaluation outlives it. The copy shares
    /// policies and data, so it costs a few reference counts.
    fn run(&self, rule: &str, input: Value, limit: Duration) -> Result<Value, Failure> {
        let start = Instant::now();
        let answer = caught(|| {
            let mut engine = self.loaded.engine.clone();
            engine.set_execution_timer_config(load::timer(limit));
            engine.set_input(input);
            engine.eval_rule(rule.to_string())
        });
        // An answer after the deadline is none, even if no clock check fell into the delay.
        if start.elapsed() > limit {
            return Err(Failure::Late);
        }
        match answer {
            Some(Ok(Value::Undefined)) => Err(Failure::Undefined),
            Some(Ok(value)) => match convert::unfit(&value, 0) {
                Some(why) => Err(Failure::Wrong(format!("the answer holds {why}"))),
                None => Ok(value),
            },
            Some(Err(error)) if error.downcast_ref::<LimitError>().is_some() => Err(Failure::Late),
            Some(Err(error)) => Err(Failure::Wrong(brief(&error))),
            None => Err(Failure::Wrong("the engine failed on this input".to_string())),
        }
    }
}

/// An error of the engine in one line: `file:line:column: text`.
fn brief(error: &anyhow::Error) -> String {
    let found = problem::Problem::from_engine("", error);
    let text = error.to_string();
    match text.lines().find_map(|line| line.strip_prefix("--> ")) {
        Some(place) => format!("{place}: {}", found.message),
        None => found.message,
    }
}

fn seconds(value: f64) -> PyResult<Duration> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(PyValueError::new_err("a deadline is a positive number of seconds")),
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (modules, data, entrypoint = "data.sidecar.decision", deadline_seconds = 0.05, nullable = Vec::new()))]
    fn new(py: Python<'_>, modules: Vec<(String, String)>, data: &[u8], entrypoint: &str, deadline_seconds: f64, nullable: Vec<String>) -> PyResult<Self> {
        let deadline = seconds(deadline_seconds)?;
        let loaded = py.detach(|| caught(|| load::load(&modules, data, entrypoint, &nullable)));
        let loaded = loaded.unwrap_or_else(|| Err(vec![problem::Problem::file("bundle", 0, 0, "engine", "the engine failed on this bundle")]));
        match loaded {
            Ok(loaded) => Ok(Self { loaded, entrypoint: entrypoint.to_string(), deadline }),
            Err(problems) => Err(load_error(py, &problems)?),
        }
    }

    /// The value of the entrypoint for an input given as Python values.
    fn evaluate<'py>(&self, py: Python<'py>, input: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let input = convert::from_python(input, 0)?;
        let value = py.detach(|| self.run(&self.entrypoint, input, self.deadline))?;
        convert::to_python(py, &value)
    }

    /// The same from and to JSON: what is decided is, byte for byte, what can be recorded.
    fn evaluate_json<'py>(&self, py: Python<'py>, input: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let answer = py.detach(|| -> Result<_, PyErr> {
            let input = convert::from_json(input).map_err(PyValueError::new_err)?;
            let value = self.run(&self.entrypoint, input, self.deadline)?;
            serde_json::to_vec(&value).map_err(|e| EvaluationError::new_err(e.to_string()))
        })?;
        Ok(PyBytes::new(py, &answer))
    }

    /// Run every `test_…` rule of the packages that start with `prefix`.
    #[pyo3(signature = (prefix = "", deadline_seconds = 1.0))]
    fn run_tests(&self, py: Python<'_>, prefix: &str, deadline_seconds: f64) -> PyResult<Vec<(String, String, bool, Option<String>, u64)>> {
        let limit = seconds(deadline_seconds)?;
        let mut results = Vec::new();
        for (package, name) in &self.loaded.tests {
            let package = package.join(".");
            if !package.starts_with(prefix) {
                continue;
            }
            let start = Instant::now();
            let outcome = py.detach(|| self.run(&format!("data.{package}.{name}"), Value::new_object(), limit));
            let (passed, error) = match outcome {
                Ok(Value::Bool(true)) => (true, None),
                Ok(_) | Err(Failure::Undefined) => (false, None),
                Err(Failure::Late) => (false, Some("took longer than the deadline".to_string())),
                Err(Failure::Wrong(text)) => (false, Some(text)),
            };
            results.push((package, name.clone(), passed, error, u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)));
        }
        Ok(results)
    }
}

fn load_error(py: Python<'_>, problems: &[problem::Problem]) -> PyResult<PyErr> {
    let text: Vec<String> = problems.iter().map(problem::Problem::text).collect();
    let error = LoadError::new_err(text.join("\n"));
    let list = PyList::empty(py);
    for problem in problems {
        let entry = PyDict::new(py);
        entry.set_item("file", &problem.file)?;
        entry.set_item("line", problem.line)?;
        entry.set_item("column", problem.column)?;
        entry.set_item("code", problem.code)?;
        entry.set_item("message", &problem.message)?;
        list.append(entry)?;
    }
    error.value(py).setattr("problems", list)?;
    Ok(error)
}

#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let report = take_hook();
    set_hook(Box::new(move |info| {
        if !QUIET.get() {
            report(info);
        }
    }));
    // The limit for whatever in regorus would not carry an engine's own.
    set_fallback_execution_timer_config(Some(load::timer(Duration::from_secs(1))));
    module.add_class::<Engine>()?;
    module.add("EngineError", py.get_type::<EngineError>())?;
    module.add("LoadError", py.get_type::<LoadError>())?;
    module.add("EvaluationError", py.get_type::<EvaluationError>())?;
    module.add("DeadlineExceeded", py.get_type::<DeadlineExceeded>())?;
    module.add("Undefined", py.get_type::<Undefined>())
}
