//! One evaluation: on a copy, under a deadline, with every way to fail told apart.

use std::cell::Cell;
use std::panic::{catch_unwind, set_hook, take_hook, AssertUnwindSafe};
use std::time::{Duration, Instant};

use pyo3::PyErr;
use regorus::{LimitError, Value};

use crate::convert::unfit;
use crate::load::{timer, Loaded};
use crate::problem::Problem;
use crate::{DeadlineExceeded, EvaluationError, Undefined};

thread_local! {
    /// Set while a panic is caught and reported as an error: it needs no second report on stderr.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Run `work`; `None` when it panicked.
pub fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    QUIET.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work)).ok();
    QUIET.set(false);
    outcome
}

/// Keep panics that `caught` reports off the standard error stream.
pub fn quiet_panics() {
    let report = take_hook();
    set_hook(Box::new(move |info| {
        if !QUIET.get() {
            report(info);
        }
    }));
}

pub enum Failure {
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

/// Evaluate one rule on a fresh copy: nothing of an evaluation outlives it. The copy shares
/// policies and data, so it costs a few reference counts.
pub fn run(loaded: &Loaded, rule: &str, input: Value, limit: Duration) -> Result<Value, Failure> {
    let start = Instant::now();
    let answer = caught(|| {
        let mut engine = loaded.engine.clone();
        engine.set_execution_timer_config(timer(limit));
        engine.set_input(input);
        let answer = engine.eval_rule(rule.to_string());
        // Rows that led to an error were evaluated, too.
        if let Some(covered) = &loaded.covered {
            covered.add(engine.get_coverage_report()?);
        }
        answer
    });
    // An answer after the deadline is none, even if no look at the clock fell into the delay.
    if start.elapsed() > limit {
        return Err(Failure::Late);
    }
    match answer {
        Some(Ok(Value::Undefined)) => Err(Failure::Undefined),
        Some(Ok(value)) => match unfit(&value, 0) {
            Some(why) => Err(Failure::Wrong(format!("the answer holds {why}"))),
            None => Ok(value),
        },
        Some(Err(error)) if error.downcast_ref::<LimitError>().is_some() => Err(Failure::Late),
        Some(Err(error)) => Err(Failure::Wrong(Problem::in_one_line(&error))),
        None => Err(Failure::Wrong("the engine failed on this input".to_string())),
    }
}
