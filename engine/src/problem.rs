//! What is wrong with a bundle, where, and what to do about it.

use regorus::unstable::{Source, Span};

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
        Self {
            file: span.source.get_path().clone(),
            line: span.line,
            column: span.col,
            code,
            message: message.into(),
        }
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

    pub fn text(&self) -> String {
        format!("{}:{}:{}: {}: {}", self.file, self.line, self.column, self.code, self.message)
    }
}

/// The first line of a source, for a problem about the whole module.
pub fn whole(source: &Source, code: &'static str, message: impl Into<String>) -> Problem {
    Problem::file(source.get_path(), 1, 1, code, message)
}
