//! References: where they lead, and what may stand under `not`.

use regorus::unstable::{BoolOp, Expr, ExprRef, Span};
use regorus::Value;

use super::{is_scalar, Checker, Frame};
use crate::graph::ITERATION;
use crate::model::{flatten, Kind, Path, Place, Step};
use crate::nulls::Abs;
use crate::refuse::is_wildcard;

impl Checker<'_> {
    pub(super) fn reference(&mut self, expr: &ExprRef) -> Abs {
        let (root, steps) = flatten(expr);
        let Expr::Var { span, .. } = root else {
            self.refuse(root.span(), "reference_into_term", "a reference starts with a name: bind the term first");
            return Abs::unknown();
        };
        let name = span.text();
        if name == "_" {
            self.refuse(span, "wildcard", "`_` is a key only: `collection[_]`");
            return Abs::unknown();
        }
        for step in &steps {
            self.key(step);
        }
        let nullable = &self.model.nullable;
        let place = if self.is_local(name) { Place::Local } else { self.model.place(self.module, name, &steps) };
        let (start, used) = match place {
            Place::Local => (self.local(name).cloned().unwrap_or_else(Abs::unknown), 0),
            Place::Input => (Abs::input(vec![], nullable), 0),
            Place::Rule { path, used } => {
                (self.rule(span, &path, name == "data" && steps[used..].iter().any(|s| s.text().is_none())), used)
            }
            Place::Base { path, used } => {
                // `path` may hold what an import stands for, besides the steps used.
                let rest = &steps[used.min(steps.len())..];
                if loose(&self.model.data, &path, rest) {
                    let message = "in data, OPA takes the key 1 and \"1\" for one another: bind the table first (`t := data.…; t[key]`)";
                    self.refuse(span, "computed_key", message);
                }
                (Abs::plain(), used)
            }
            Place::Package => {
                let message = "a package as a value mixes rules and data: name one rule or one table";
                self.refuse(expr.span(), "package_value", message);
                (Abs::unknown(), steps.len())
            }
            Place::Missing(message) => {
                self.refuse(span, "undefined_name", message);
                (Abs::unknown(), steps.len())
            }
        };
        let abs = steps[used.min(steps.len())..].iter().fold(start, |abs, step| abs.element(step.text(), nullable));
        let known = self.canonical(expr);
        let listed = |list: fn(&Frame) -> &Vec<String>| {
            known.as_ref().is_some_and(|text| self.frames.iter().any(|f| list(f).contains(text)))
        };
        if listed(|f| &f.scalars) {
            return Abs { null: false, holds_null: false, sets: false, scalar: true, ..abs };
        }
        Abs { null: abs.null && !listed(|f| &f.guards), ..abs }
    }

    fn key(&mut self, step: &Step<'_>) {
        let Step::Index(index) = step else { return };
        if is_wildcard(index) {
            self.deeper(ITERATION);
            if !self.wildcard {
                self.refuse(
                    index.span(),
                    "wildcard",
                    "`[_]` stands in a statement of its own only: write `some x in collection`",
                );
            }
            return;
        }
        // The engine takes a variable of `every` for a new one, to be found by iterating.
        let every = |name: &str| self.frames.iter().any(|f| f.every && f.locals.iter().any(|(known, _)| known == name));
        if matches!(index.as_ref(), Expr::Var { span, .. } if every(span.text())) && !self.wildcard {
            let message =
                "a variable of `every` as a key here is iterated, not looked up: use object.get(collection, key, null)";
            self.refuse(index.span(), "every_key", message);
        }
        self.term(index);
    }

    fn rule(&mut self, span: &Span, path: &Path, computed_key: bool) -> Abs {
        self.reads.push(path.clone());
        if matches!(self.model.rules[path].kind, Kind::Function(_)) {
            self.refuse(span, "function_as_value", "a function without its arguments: call it");
        }
        if computed_key {
            let message = "below `data.…`, the embedded engine takes the key 1 also for \"1\": import the package and write `package.rule[key]`";
            self.refuse(span, "computed_key", message);
        }
        self.values.get(path).cloned().unwrap_or_default()
    }

    pub(super) fn negated(&mut self, expr: &ExprRef) {
        let bind_first = "bind it first, outside of the negation: `hit := …; not hit`";
        match expr.as_ref() {
            Expr::BoolExpr { op: BoolOp::Eq, lhs, rhs, .. } => {
                for side in [lhs, rhs] {
                    self.negated_term(side, bind_first);
                    let abs = self.local_abs(side);
                    self.not_null(side, &abs, "is compared under `not`");
                }
            }
            _ if is_scalar(expr) => self.refuse(expr.span(), "negation", "a negated literal: remove it"),
            _ => self.negated_term(expr, bind_first),
        }
    }

    /// The value of a term that was walked already.
    fn local_abs(&mut self, expr: &ExprRef) -> Abs {
        let kept = (self.problems.len(), self.reads.len());
        let abs = self.term(expr);
        self.problems.truncate(kept.0);
        self.reads.truncate(kept.1);
        abs
    }

    /// Under `not`: a scalar, or one reference whose keys are scalars or bound locals.
    fn negated_term(&mut self, expr: &ExprRef, advice: &str) {
        if is_scalar(expr) {
            return;
        }
        let (root, steps) = flatten(expr);
        let Expr::Var { span, .. } = root else {
            let message = format!("under `not` stands one reference, or `==` between two: {advice}");
            return self.refuse(expr.span(), "negation", message);
        };
        if span.text() == "_" {
            return self.refuse(span, "negation", format!("`_` under `not`: {advice}"));
        }
        let mut keys = Vec::new();
        for step in &steps {
            if let Step::Index(index) = step {
                let bound = matches!(index.as_ref(), Expr::Var { span, .. } if self.is_local(span.text()));
                if !bound && !is_scalar(index) {
                    let message = format!(
                        "under `not` the keys are literals or bound names, `{}` may be undefined: {advice}",
                        index.span().text()
                    );
                    self.refuse(index.span(), "negation", message);
                } else if bound {
                    keys.push(*index);
                }
            }
        }
        for key in keys {
            let abs = self.local_abs(key);
            self.not_null(key, &abs, "is a key under `not`");
        }
        self.term(expr);
    }
}

/// Could a key on this way through the data document match a number with its text?
fn loose(value: &Value, path: &[String], rest: &[Step<'_>]) -> bool {
    let fixed = |key: &str, path: &[String], rest: &[Step<'_>]| match value {
        Value::Array(_) => true,
        Value::Object(_) => loose(&value[key], path, rest),
        _ => false,
    };
    if let Some((key, path)) = path.split_first() {
        return fixed(key, path, rest);
    }
    let Some((step, rest)) = rest.split_first() else { return false };
    if let Some(key) = step.text() {
        return fixed(key, path, rest);
    }
    let Step::Index(index) = step else { return false };
    let iterated = is_wildcard(index);
    match value {
        Value::Array(items) => (!iterated && !is_scalar(index)) || items.iter().any(|item| loose(item, path, rest)),
        Value::Object(entries) => entries.iter().any(|(key, item)| {
            let numeric = matches!(key, Value::String(text) if looks_numeric(text));
            (numeric && !iterated) || (!rest.is_empty() && loose(item, path, rest))
        }),
        _ => false,
    }
}

fn looks_numeric(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}
