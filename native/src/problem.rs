//! What is wrong with a bundle, where, and what to do about it.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use regorus::unstable::{Source, Span};

use crate::LoadError;

/// One reason why a bundle must not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub file: String,
    /// Counted from 1; 0 when the problem concerns the whole file.
    pub line: u32,
    pub column: u32,
    pub code: &'static str,
    pub message: String,
}

impl Problem {
    pub fn at(span: &Span, code: &'static str, message: impl Into<String>) -> Self {
        Self { file: span.source.get_path().clone(), line: span.line, column: span.col, code, message: message.into() }
    }

    pub fn file(file: &str, line: u32, column: u32, code: &'static str, message: impl Into<String>) -> Self {
        Self { file: file.to_string(), line, column, code, message: message.into() }
    }

    /// Read position and text out of an error of the parser, which carries them only as text.
    pub fn from_engine(file: &str, error: &anyhow::Error) -> Self {
        let text = error.to_string();
        let mut lines = text.lines();
        let place = lines.find_map(|line| line.strip_prefix("--> "));
        let detail = text.lines().find_map(|line| line.strip_prefix("error: ")).map(str::to_string);
        if let Some(place) = place {
            let mut parts = place.rsplitn(3, ':');
            let column = parts.next().and_then(|p| p.parse().ok()).unwrap_or(0);
            let line = parts.next().and_then(|p| p.parse().ok()).unwrap_or(0);
            let message = detail.unwrap_or_else(|| "not valid Rego".to_string());
            return Self::file(file, line, column, "rego_parse", message);
        }
        // The other form is `file:line:column error: text`.
        if let Some((place, message)) = text.split_once(" error: ") {
            let mut parts = place.rsplitn(3, ':');
            if let (Some(Ok(column)), Some(Ok(line))) = (parts.next().map(str::parse), parts.next().map(str::parse)) {
                return Self::file(file, line, column, "rego_parse", message);
            }
        }
        Self::file(file, 0, 0, "rego_parse", text)
    }

    /// An error of an evaluation: `file:line:column: text`.
    pub fn in_one_line(error: &anyhow::Error) -> String {
        let found = Self::from_engine("", error);
        match error.to_string().lines().find_map(|line| line.strip_prefix("--> ")) {
            Some(place) => format!("{place}: {}", found.message),
            None => found.message,
        }
    }

    pub fn text(&self) -> String {
        format!("{}:{}:{}: {}: {}", self.file, self.line, self.column, self.code, self.message)
    }
}

/// The first line of a source, for a problem about the whole module.
pub fn whole(source: &Source, code: &'static str, message: impl Into<String>) -> Problem {
    Problem::file(source.get_path(), 1, 1, code, message)
}

/// The Python exception: one line for each problem, and the same as data in `problems`.
pub fn load_error(py: Python<'_>, problems: &[Problem]) -> PyResult<PyErr> {
    let text: Vec<String> = problems.iter().map(Problem::text).collect();
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
