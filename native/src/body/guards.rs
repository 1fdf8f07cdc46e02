//! Guards: statements after which a reference is known not to be null.

use regorus::unstable::{BoolOp, Expr, ExprRef};

use super::{is_scalar, Checker};
use crate::model::{flatten, static_path, Step};

impl Checker<'_> {
    /// Statements after which a reference is known not to be null.
    pub(super) fn guard(&mut self, expr: &ExprRef) {
        let guarded = match expr.as_ref() {
            Expr::Call { fcn, params, .. } => match (static_path(fcn), params.as_slice()) {
                (Some(name), [param])
                    if matches!(name.join(".").as_str(), "is_string" | "is_number" | "is_boolean") =>
                {
                    Some(param)
                }
                _ => None,
            },
            Expr::BoolExpr { op, lhs, rhs, .. } => {
                let null = |e: &ExprRef| matches!(e.as_ref(), Expr::Null { .. });
                let value = |e: &ExprRef| is_scalar(e) && !null(e);
                match op {
                    BoolOp::Eq if value(rhs) => Some(lhs),
                    BoolOp::Eq if value(lhs) => Some(rhs),
                    BoolOp::Ne if null(rhs) => return self.guard_not_null(lhs),
                    BoolOp::Ne if null(lhs) => return self.guard_not_null(rhs),
                    _ => None,
                }
            }
            _ => None,
        };
        if let (Some(text), Some(frame)) = (guarded.and_then(|e| self.canonical(e)), self.frames.last_mut()) {
            frame.guards.push(text.clone());
            frame.scalars.push(text);
        }
    }

    fn guard_not_null(&mut self, expr: &ExprRef) {
        if let (Some(text), Some(frame)) = (self.canonical(expr), self.frames.last_mut()) {
            frame.guards.push(text);
        }
    }

    /// One spelling for each reference whose parts are fixed in this body.
    pub(super) fn canonical(&self, expr: &ExprRef) -> Option<String> {
        let (root, steps) = flatten(expr);
        let Expr::Var { span, .. } = root else { return None };
        let mut text = span.text().to_string();
        for step in &steps {
            text.push('[');
            match (step.text(), step) {
                (Some(key), _) => text.push_str(&format!("{key:?}")),
                (None, Step::Index(index)) => match index.as_ref() {
                    Expr::Var { span, .. } if self.is_local(span.text()) => text.push_str(span.text()),
                    Expr::Number { span, .. } => text.push_str(span.text()),
                    _ => return None,
                },
                _ => return None,
            }
            text.push(']');
        }
        Some(text)
    }
}
