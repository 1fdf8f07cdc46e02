//! Terms: what each may be, and where the engines differ on it.

use std::collections::BTreeSet;

use regorus::unstable::{ArithOp, BinOp, BoolOp, Expr, ExprRef, Span};

use super::{certain, Checker};
use crate::calls::{self, Gives};
use crate::graph::TERM;
use crate::model::{flatten, Kind, Path, Place};
use crate::nulls::Abs;

impl Checker<'_> {
    pub(super) fn membership_part(&mut self, expr: &ExprRef) -> Abs {
        if matches!(expr.as_ref(), Expr::BoolExpr { .. } | Expr::Membership { .. }) {
            self.refuse(
                expr.span(),
                "precedence",
                "`in` next to a comparison is read differently: bind one of them first",
            );
        }
        self.term(expr)
    }

    /// Walk a term and say what it may be.
    pub fn term(&mut self, expr: &ExprRef) -> Abs {
        self.deeper(TERM);
        let abs = self.term_inside(expr);
        // Less the term itself: iterations found inside stay open for what follows.
        self.level = self.level.saturating_sub(TERM);
        abs
    }

    fn term_inside(&mut self, expr: &ExprRef) -> Abs {
        match expr.as_ref() {
            Expr::String { .. } | Expr::RawString { .. } | Expr::Bool { .. } => Abs::scalar(),
            Expr::Null { .. } => Abs { null: true, ..Abs::plain() },
            Expr::Number { span, .. } => self.number(span),
            Expr::UnaryExpr { span, expr, .. } => {
                if !matches!(expr.as_ref(), Expr::Number { .. }) {
                    self.refuse(span, "unary_minus", "a minus sign stands before a number only: write `0 - x`");
                }
                self.term(expr)
            }
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.reference(expr),
            Expr::Array { items, .. } => self.members(items.iter()),
            Expr::Set { items, .. } => Abs { sets: true, ..self.members(items.iter()) },
            Expr::Object { fields, .. } => {
                self.keys(fields.iter().map(|(_, key, _)| key));
                self.members(fields.iter().flat_map(|(_, k, v)| [k, v]))
            }
            Expr::ArrayCompr { term, query, .. } => self.nested(query, &[term]),
            Expr::SetCompr { term, query, .. } => Abs { sets: true, ..self.nested(query, &[term]) },
            Expr::ObjectCompr { key, value, query, .. } => self.nested(query, &[key, value]),
            Expr::Call { .. } => self.call(expr),
            Expr::BinExpr { op, lhs, rhs, .. } => {
                let what = if *op == BinOp::Union { "meets `|`" } else { "meets `&`" };
                self.operand(lhs, what);
                self.operand(rhs, what);
                Abs { sets: true, ..Abs::plain() }
            }
            Expr::ArithExpr { span, op, lhs, rhs, .. } => self.arithmetic(span, op, lhs, rhs),
            Expr::BoolExpr { op, lhs, rhs, .. } => self.comparison(op, lhs, rhs),
            Expr::Membership { key, value, collection, .. } => self.membership(key.as_ref(), value, collection),
            Expr::AssignExpr { span, .. } => {
                self.refuse(span, "assignment", "an assignment is a statement of its own");
                Abs::unknown()
            }
        }
    }

    fn number(&mut self, span: &Span) -> Abs {
        let text = span.text();
        let digits = text.strip_prefix('-').unwrap_or(text);
        if !digits.bytes().all(|b| b.is_ascii_digit()) || digits.len() > 18 {
            self.refuse(
                span,
                "not_an_integer",
                format!("`{text}`: only integers of up to 18 digits are the same in both engines"),
            );
        }
        Abs::scalar()
    }

    fn members<'e>(&mut self, items: impl Iterator<Item = &'e ExprRef>) -> Abs {
        let mut abs = Abs::plain();
        for item in items {
            abs = abs.join(&self.term(item).held());
        }
        abs
    }

    /// OPA sorts the fields of an object before it fills them in, and drops one of two that were written with one key.
    fn keys<'e>(&mut self, written: impl ExactSizeIterator<Item = &'e ExprRef>) {
        let several = written.len() > 1;
        let mut known = BTreeSet::new();
        for key in written {
            let different = match key.as_ref() {
                Expr::String { value, .. }
                | Expr::RawString { value, .. }
                | Expr::Number { value, .. }
                | Expr::Bool { value, .. }
                | Expr::Null { value, .. } => known.insert(value.clone()),
                _ => !several,
            };
            if !different {
                let message = "where two keys are equal, OPA keeps another field: in an object of several, the keys are different literals: use object.union for others";
                self.refuse(key.span(), "object_keys", message);
            }
        }
    }

    fn arithmetic(&mut self, span: &Span, op: &ArithOp, lhs: &ExprRef, rhs: &ExprRef) -> Abs {
        if *op == ArithOp::Div {
            self.refuse(
                span,
                "division",
                "a quotient may be a fraction, on which the engines differ: multiply the other side",
            );
        }
        let left = self.operand(lhs, "meets arithmetic");
        let right = self.operand(rhs, "meets arithmetic");
        let difference = *op == ArithOp::Sub && left.sets && right.sets;
        Abs { sets: difference, scalar: !difference, ..Abs::plain() }
    }

    fn comparison(&mut self, op: &BoolOp, lhs: &ExprRef, rhs: &ExprRef) -> Abs {
        for side in [lhs, rhs] {
            if matches!(side.as_ref(), Expr::BoolExpr { .. } | Expr::Membership { .. }) {
                self.refuse(
                    side.span(),
                    "precedence",
                    "a comparison of a comparison is read differently: bind one of them first",
                );
            }
        }
        let null = |e: &ExprRef| matches!(e.as_ref(), Expr::Null { .. });
        match op {
            BoolOp::Eq => {
                self.term(lhs);
                self.term(rhs);
            }
            BoolOp::Ne if null(lhs) || null(rhs) => {
                self.term(lhs);
                self.term(rhs);
            }
            BoolOp::Ne => {
                self.operand(lhs, "meets `!=`");
                self.operand(rhs, "meets `!=`");
            }
            _ => {
                let left = self.operand(lhs, "is ordered");
                let right = self.operand(rhs, "is ordered");
                if (left.sets || right.sets) && !left.scalar && !right.scalar {
                    let message = "the engines order sets and objects differently: state is_number or is_string of one side before";
                    self.refuse(lhs.span(), "ordering", message);
                }
            }
        }
        Abs::scalar()
    }

    fn membership(&mut self, key: Option<&ExprRef>, value: &ExprRef, collection: &ExprRef) -> Abs {
        if let Some(key) = key {
            self.refuse(
                key.span(),
                "membership",
                "`key, value in collection` answers wrongly for sets and absent keys: write `collection[key] == value`",
            );
        }
        let sure = |e: &ExprRef, this: &Self| certain(e, &|name| this.is_local(name));
        if !sure(value, self) || !sure(collection, self) {
            let message = "`in` is false, not undefined, when a side is undefined: bind both sides first (`v := …; c := …; v in c`)";
            self.refuse(value.span(), "membership", message);
        }
        self.membership_part(value);
        self.membership_part(collection);
        Abs::plain()
    }

    fn call(&mut self, expr: &ExprRef) -> Abs {
        let Expr::Call { span, fcn, params, .. } = expr.as_ref() else { return Abs::unknown() };
        let Some(name) = crate::model::static_path(fcn) else {
            self.refuse(span, "call", "a function is called by its name");
            return Abs::unknown();
        };
        let (_, steps) = flatten(fcn);
        let mut abs = Abs::plain();
        if let Place::Rule { path, .. } = self.model.place(self.module, &name[0], &steps) {
            abs = abs.join(&self.function(span, &path, params.len()));
            for param in params {
                self.operand(param, "is given to a function");
            }
            return abs;
        }
        let name = name.join(".");
        let Some(builtin) = calls::find(&name) else {
            self.refuse(span, "builtin", calls::why_refused(&name));
            return Abs::unknown();
        };
        self.calls.insert(builtin.name);
        if params.len() != builtin.arity {
            self.refuse(
                span,
                "arity",
                format!(
                    "`{name}` takes {} arguments, {} are given: bind the result with `:=`",
                    builtin.arity,
                    params.len()
                ),
            );
        } else if let Err(what) = calls::check_arguments(&name, params) {
            self.refuse(span, "argument", format!("`{name}`: {what}"));
        }
        for param in params {
            let given =
                if builtin.null_is_fine { self.term(param) } else { self.operand(param, "is given to a function") };
            if name == "sprintf" && given.sets {
                self.refuse(param.span(), "argument", "`sprintf`: sets print differently: state is_string or is_number of the value before, or give count() of it");
            }
            abs = abs.join(&Abs { path: None, null: false, ..given });
        }
        match builtin.gives {
            Gives::Scalar => Abs::scalar(),
            Gives::Parts => Abs { scalar: false, ..abs },
            Gives::Set => Abs { sets: true, scalar: false, ..abs },
            Gives::Document => Abs { null: true, holds_null: true, ..Abs::plain() },
        }
    }

    fn function(&mut self, span: &Span, path: &Path, given: usize) -> Abs {
        self.reads.push(path.clone());
        match self.model.rules[path].kind {
            Kind::Function(arity) if arity == given => {}
            Kind::Function(arity) => self.refuse(
                span,
                "arity",
                format!("the function takes {arity} arguments, {given} are given: bind the result with `:=`"),
            ),
            _ => self.refuse(span, "call", "this rule is not a function: remove the brackets"),
        }
        self.values.get(path).cloned().unwrap_or_default()
    }
}
