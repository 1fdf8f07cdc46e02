//! One evaluation: on a copy, under a deadline, with every way to fail told apart.

use std::cell::Cell;
use std::panic::{catch_unwind, set_hook, take_hook, AssertUnwindSafe};
use std::time::{Duration, Instant};

use pyo3::PyErr;
use regorus::{LimitError, Value};

use crate::bounds::{fits, taken_too_large, MAX_ANSWER};
use crate::convert::unfit;
use crate::load::{timer, Loaded};
use crate::memory::Grant;
use crate::plan::{evaluate, Plan};
use crate::problem::Problem;
use crate::{DeadlineExceeded, EvaluationError, MemoryExceeded, Undefined};

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

/// How regorus says that the limit was met. Only as text: a function passes errors on without their type.
const OVER_LIMIT: &str = "execution exceeded memory limit";
const MAX_ERROR: usize = 2000;

/// What one evaluation may take.
#[derive(Clone, Copy)]
pub struct Limits {
    pub time: Duration,
    /// Bytes beside what is live when it starts.
    pub memory: u64,
}

/// A question: parts of a document, to a plan; or a document, to a rule by its name.
pub enum Asked<'a> {
    Plan(&'a Plan, Vec<Value>),
    Rule(&'a str, Value),
}

pub enum Failure {
    Late,
    /// More memory than its budget; or a value beyond the bounds of one call, and where.
    Large(String),
    Undefined,
    Wrong(String),
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Late => DeadlineExceeded::new_err("the evaluation took longer than the deadline"),
            Failure::Large(text) => MemoryExceeded::new_err(text),
            Failure::Undefined => Undefined::new_err("the entrypoint is undefined for this input"),
            Failure::Wrong(text) => EvaluationError::new_err(text),
        }
    }
}

/// Evaluate one rule: by its plan where there is one, else by the interpreter on a fresh copy, so that nothing of an
/// evaluation outlives it. The copy shares policies and data and costs a few reference counts.
///
/// Evaluations in other threads count against the same limit, so one that meets it beside others is tried once more,
/// in what is left of its time: the one that was too large has ended by then, or ends at its own next look.
pub fn run(loaded: &Loaded, asked: &Asked<'_>, limits: Limits) -> Result<Value, Failure> {
    let start = Instant::now();
    let grant = Grant::of(limits.memory);
    let first = within(loaded, asked, limits, start);
    let alone = grant.alone();
    drop(grant);
    match first {
        Err(Failure::Large(_)) if !alone && start.elapsed() < limits.time => {
            let _grant = Grant::of(limits.memory);
            within(loaded, asked, limits, start)
        }
        other => other,
    }
}

fn within(loaded: &Loaded, asked: &Asked<'_>, limits: Limits, start: Instant) -> Result<Value, Failure> {
    taken_too_large();
    let answer = caught(|| {
        let (rule, input) = match asked {
            Asked::Plan(plan, parts) => return evaluate(plan, parts, start, limits.time),
            Asked::Rule(rule, document) => ((*rule).to_string(), document.clone()),
        };
        let Some(mut engine) = loaded.engine.clone() else {
            anyhow::bail!("only the entrypoint can be asked, by its plan");
        };
        engine.set_execution_timer_config(timer(limits.time.saturating_sub(start.elapsed())));
        engine.set_input(input);
        let answer = engine.eval_rule(rule);
        // Rows that led to an error were evaluated, too.
        if let Some(covered) = &loaded.covered {
            covered.add(engine.get_coverage_report()?);
        }
        answer
    });
    // An answer after the deadline is none, even if no look at the clock fell into the delay; nor is one that goes on
    // from a result that was refused.
    let refused = taken_too_large();
    if start.elapsed() > limits.time {
        return Err(Failure::Late);
    }
    match answer {
        Some(Err(error)) => Err(failed(&error, refused.is_some(), limits)),
        Some(Ok(_)) if refused.is_some() => Err(Failure::Large(refused.unwrap_or_default())),
        Some(Ok(Value::Undefined)) => Err(Failure::Undefined),
        Some(Ok(value)) => fit(value),
        None => Err(Failure::Wrong("the engine failed on this input".to_string())),
    }
}

fn failed(error: &anyhow::Error, refused: bool, limits: Limits) -> Failure {
    let mut text = Problem::in_one_line(error);
    if text.contains(OVER_LIMIT) || matches!(error.downcast_ref(), Some(LimitError::MemoryLimitExceeded { .. })) {
        return Failure::Large(format!("the evaluation takes more than its {} MiB of memory", limits.memory >> 20));
    }
    if error.downcast_ref::<LimitError>().is_some() {
        return Failure::Late;
    }
    if text.len() > MAX_ERROR {
        text = text.chars().take(MAX_ERROR).collect();
    }
    if refused {
        Failure::Large(text)
    } else {
        Failure::Wrong(text)
    }
}

fn fit(value: Value) -> Result<Value, Failure> {
    // First of all: a value may be small and, written out, have no end.
    if !fits(&value, &mut MAX_ANSWER.clone(), 1, 0) {
        return Err(Failure::Large(format!("the answer, written out, takes more than {} MiB", MAX_ANSWER >> 20)));
    }
    match unfit(&value, 0) {
        Some(why) => Err(Failure::Wrong(format!("the answer holds {why}"))),
        None => Ok(value),
    }
}
