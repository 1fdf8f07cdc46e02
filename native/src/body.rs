//! The statements and terms of one rule body.

use std::collections::BTreeSet;

use regorus::unstable::{AssignOp, Expr, ExprRef, Literal, LiteralStmt, Query, Rule, RuleHead, Span};

use crate::graph::{Graph, ITERATION, NESTED_QUERY};
use crate::model::{Kind, Model, Path};
use crate::nulls::Abs;
use crate::problem::Problem;
use crate::refuse::Values;

mod guards;
mod references;
mod terms;

#[derive(Default)]
struct Frame {
    locals: Vec<(String, Abs)>,
    /// Its locals were declared by `every`.
    every: bool,
    /// References, as text, known not to be null from here on.
    guards: Vec<String>,
    /// Those of them known to be a string, number or boolean.
    scalars: Vec<String>,
}

/// Walks one definition of one rule.
pub struct Checker<'m> {
    model: &'m Model,
    values: &'m Values,
    module: usize,
    rule: &'m Path,
    testing: bool,
    frames: Vec<Frame>,
    problems: Vec<Problem>,
    reads: Vec<Path>,
    /// Built-ins, by name.
    calls: BTreeSet<&'static str>,
    /// `collection[_]` is accepted: directly in a statement that is not negated.
    wildcard: bool,
    /// How deep evaluation nests here, and the deepest it did.
    level: usize,
    deepest: usize,
}

/// Is this term defined whatever the documents hold? Literals, bound locals, and what is made of them.
pub fn certain(expr: &ExprRef, is_local: &dyn Fn(&str) -> bool) -> bool {
    match expr.as_ref() {
        Expr::String { .. } | Expr::RawString { .. } | Expr::Number { .. } | Expr::Bool { .. } | Expr::Null { .. } => {
            true
        }
        Expr::UnaryExpr { expr, .. } => matches!(expr.as_ref(), Expr::Number { .. }),
        Expr::ArrayCompr { .. } | Expr::SetCompr { .. } | Expr::ObjectCompr { .. } => true,
        Expr::Var { span, .. } => is_local(span.text()),
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().all(|item| certain(item, is_local)),
        Expr::Object { fields, .. } => fields.iter().all(|(_, k, v)| certain(k, is_local) && certain(v, is_local)),
        _ => false,
    }
}

fn is_scalar(expr: &ExprRef) -> bool {
    match expr.as_ref() {
        Expr::String { .. } | Expr::RawString { .. } | Expr::Number { .. } | Expr::Bool { .. } | Expr::Null { .. } => {
            true
        }
        Expr::UnaryExpr { expr, .. } => matches!(expr.as_ref(), Expr::Number { .. }),
        _ => false,
    }
}

impl<'m> Checker<'m> {
    pub fn new(model: &'m Model, values: &'m Values, module: usize, rule: &'m Path) -> Self {
        let testing = model.packages[module].last().is_some_and(|p| p.ends_with("_test"));
        Self {
            model,
            values,
            module,
            rule,
            testing,
            frames: vec![Frame::default()],
            problems: vec![],
            reads: vec![],
            calls: BTreeSet::new(),
            wildcard: false,
            level: 0,
            deepest: 0,
        }
    }

    pub fn finish(self, problems: &mut Vec<Problem>, graph: &mut Graph) {
        problems.extend(self.problems);
        graph.add(self.rule, self.reads, self.calls, self.deepest);
    }

    fn deeper(&mut self, by: usize) {
        self.level = self.level.saturating_add(by);
        self.deepest = self.deepest.max(self.level);
    }

    pub fn refuse(&mut self, span: &Span, code: &'static str, message: impl Into<String>) {
        self.problems.push(Problem::at(span, code, message));
    }

    pub fn is_local(&self, name: &str) -> bool {
        self.local(name).is_some()
    }

    fn local(&self, name: &str) -> Option<&Abs> {
        self.frames.iter().rev().flat_map(|f| &f.locals).find(|(known, _)| known == name).map(|(_, abs)| abs)
    }

    /// Declare a local. A name means one thing in the whole body.
    fn declare(&mut self, span: &Span, abs: Abs) {
        let name = span.text();
        if name == "_" {
            return;
        }
        let mut own = self.model.packages[self.module].clone();
        own.push(name.to_string());
        let taken = self.is_local(name)
            || self.model.rules.contains_key(&own)
            || self.model.imports[self.module].contains_key(name)
            || matches!(name, "input" | "data");
        if taken {
            self.refuse(span, "shadowed", format!("`{name}` already names something here: choose another name"));
        }
        if let Some(frame) = self.frames.last_mut() {
            frame.locals.push((name.to_string(), abs));
        }
    }

    /// Declare what a pattern binds. Patterns other than one name are refused.
    fn bind(&mut self, pattern: &ExprRef, abs: Abs) {
        match pattern.as_ref() {
            Expr::Var { span, .. } => self.declare(span, abs),
            other => {
                self.refuse(other.span(), "pattern", "only a plain name can be bound here: bind it, then take it apart")
            }
        }
    }

    pub fn parameters(&mut self, args: &[ExprRef]) {
        for arg in args {
            if !is_scalar(arg) {
                self.bind(arg, Abs::unknown());
            }
        }
    }

    pub fn query(&mut self, query: &Query) {
        for stmt in &query.stmts {
            self.statement(stmt);
        }
    }

    fn nested(&mut self, query: &Query, terms: &[&ExprRef]) -> Abs {
        let outer = (std::mem::replace(&mut self.wildcard, false), self.level);
        self.deeper(NESTED_QUERY);
        self.frames.push(Frame::default());
        self.query(query);
        let mut abs = Abs::plain();
        for term in terms {
            abs = abs.join(&self.term(term).held());
        }
        self.frames.pop();
        (self.wildcard, self.level) = outer;
        abs
    }

    fn statement(&mut self, stmt: &LiteralStmt) {
        self.with(stmt);
        match &stmt.literal {
            Literal::SomeVars { span, .. } => {
                self.refuse(
                    span,
                    "some_without_in",
                    "write `some x in collection` (or `some key, value in collection`)",
                );
            }
            Literal::SomeIn { key, value, collection, .. } => {
                // What follows runs inside.
                self.deeper(ITERATION);
                let abs = self.iterated(collection);
                let nullable = &self.model.nullable;
                let element = abs.element(None, nullable);
                if let Some(key) = key {
                    self.bind(key, Abs { sets: abs.sets, ..Abs::plain() });
                }
                self.bind(value, element);
            }
            Literal::Every { key, value, domain, query, .. } => {
                let abs = self.iterated(domain);
                let element = abs.element(None, &self.model.nullable);
                let outer = self.level;
                self.deeper(NESTED_QUERY);
                self.frames.push(Frame { every: true, ..Frame::default() });
                if let Some(key) = key {
                    self.declare(key, Abs { sets: abs.sets, ..Abs::plain() });
                }
                self.declare(value, element);
                self.frames.push(Frame::default());
                self.query(query);
                self.frames.truncate(self.frames.len().saturating_sub(2));
                self.level = outer;
            }
            Literal::Expr { expr, .. } => {
                self.wildcard = stmt.with_mods.is_empty();
                self.positive(expr);
                self.wildcard = false;
            }
            Literal::NotExpr { expr, .. } => self.negated(expr),
        }
    }

    fn iterated(&mut self, collection: &ExprRef) -> Abs {
        let abs = self.term(collection);
        self.not_null(collection, &abs, "is iterated");
        abs
    }

    fn positive(&mut self, expr: &ExprRef) {
        match expr.as_ref() {
            Expr::AssignExpr { op: AssignOp::ColEq, lhs, rhs, .. } => {
                let abs = self.term(rhs);
                self.bind(lhs, abs);
            }
            Expr::AssignExpr { span, op: AssignOp::Eq, .. } => {
                self.refuse(span, "unification", "`=` is resolved differently: write `:=` to bind or `==` to compare");
            }
            // As a statement, `undefined` and `false` are the same.
            Expr::Membership { key: None, value, collection, .. } => {
                self.membership_part(value);
                self.membership_part(collection);
            }
            _ => {
                self.term(expr);
                self.guard(expr);
            }
        }
    }

    fn not_null(&mut self, expr: &ExprRef, abs: &Abs, what: &str) {
        if abs.null {
            let text = expr.span().text();
            let message = format!("`{text}` may be null and {what}: state is_string, is_number or is_boolean of it before, in the same body");
            self.refuse(expr.span(), "null_leaf", message);
        }
    }

    /// An argument of a function or an operand: neither null nor holding nulls.
    fn operand(&mut self, expr: &ExprRef, what: &str) -> Abs {
        let abs = self.term(expr);
        self.not_null(expr, &abs, what);
        if abs.holds_null {
            let message = format!(
                "`{}` holds leaves that may be null and {what}: use the leaves, each after its type test",
                expr.span().text()
            );
            self.refuse(expr.span(), "null_leaf", message);
        }
        abs
    }

    /// `with` is for tests, where it replaces whole documents by known values.
    fn with(&mut self, stmt: &LiteralStmt) {
        let Some(first) = stmt.with_mods.first() else { return };
        if !self.testing {
            self.refuse(
                &first.span,
                "with",
                "`with` stands in packages named `…_test` only: pass the value to a function",
            );
        }
        let simple = match &stmt.literal {
            Literal::Expr { expr, .. } => !matches!(expr.as_ref(), Expr::AssignExpr { op: AssignOp::Eq, .. }),
            Literal::NotExpr { .. } => true,
            _ => false,
        };
        if !simple {
            self.refuse(&first.span, "with", "`with` stands behind one expression, not behind `some` or `every`");
        }
        for modifier in &stmt.with_mods {
            let target = crate::model::static_path(&modifier.refr).unwrap_or_default();
            let is_function = target.first().is_some_and(|root| root == "data")
                && self.model.rules.get(&target[1..]).is_some_and(|entry| matches!(entry.kind, Kind::Function(_)));
            if !matches!(target.first().map(String::as_str), Some("input" | "data")) || is_function {
                self.refuse(
                    &modifier.span,
                    "with",
                    "only `input` and `data` are replaced: functions keep their meaning",
                );
            }
            self.term(&modifier.r#as);
            if !self.known(&modifier.r#as) {
                let message = "an undefined value here is handled differently: bind it first (`doc := …`), then `with input as doc`";
                self.refuse(modifier.r#as.span(), "with", message);
            }
        }
    }

    /// Certain, or a rule with a certain value and no condition.
    fn known(&self, expr: &ExprRef) -> bool {
        let constant = |name: &str| {
            let mut path = self.model.packages[self.module].clone();
            path.push(name.to_string());
            self.model.rules.get(&path).is_some_and(|entry| {
                entry.default.is_some()
                    || entry.defs.iter().any(|(_, rule)| match rule.as_ref() {
                        Rule::Spec { head: RuleHead::Compr { assign: Some(assign), .. }, bodies, .. } => {
                            bodies.is_empty() && certain(&assign.value, &|_| false)
                        }
                        _ => false,
                    })
            })
        };
        certain(expr, &|name| self.is_local(name) || constant(name))
    }
}
