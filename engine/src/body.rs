//! The statements and terms of one rule body.

use regorus::unstable::{ArithOp, AssignOp, BinOp, BoolOp, Expr, ExprRef, Literal, LiteralStmt, Query, Span};
use regorus::Value;

use crate::calls::{self, Gives};
use crate::graph::{Graph, ITERATION, NESTED_QUERY, TERM};
use crate::model::{flatten, Kind, Model, Path, Place, Step};
use crate::nulls::Abs;
use crate::problem::Problem;
use crate::refuse::{is_wildcard, Values};

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
    /// `collection[_]` is accepted: directly in a statement that is not negated.
    wildcard: bool,
    /// How deep evaluation nests here, and the deepest it did.
    level: usize,
    deepest: usize,
}

/// Is this term defined whatever the documents hold? Literals, bound locals, and what is made of them.
pub fn certain(expr: &ExprRef, is_local: &dyn Fn(&str) -> bool) -> bool {
    match expr.as_ref() {
        Expr::String { .. } | Expr::RawString { .. } | Expr::Number { .. } | Expr::Bool { .. } | Expr::Null { .. } => true,
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
        Expr::String { .. } | Expr::RawString { .. } | Expr::Number { .. } | Expr::Bool { .. } | Expr::Null { .. } => true,
        Expr::UnaryExpr { expr, .. } => matches!(expr.as_ref(), Expr::Number { .. }),
        _ => false,
    }
}

impl<'m> Checker<'m> {
    pub fn new(model: &'m Model, values: &'m Values, module: usize, rule: &'m Path) -> Self {
        let testing = model.packages[module].last().is_some_and(|p| p.ends_with("_test"));
        Self { model, values, module, rule, testing, frames: vec![Frame::default()], problems: vec![], reads: vec![], wildcard: false, level: 0, deepest: 0 }
    }

    pub fn finish(self, problems: &mut Vec<Problem>, graph: &mut Graph) {
        problems.extend(self.problems);
        graph.add(self.rule, self.reads, self.deepest);
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
            other => self.refuse(other.span(), "pattern", "only a plain name can be bound here: bind it, then take it apart"),
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
                self.refuse(span, "some_without_in", "write `some x in collection` (or `some key, value in collection`)");
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

    /// Statements after which a reference is known not to be null.
    fn guard(&mut self, expr: &ExprRef) {
        let guarded = match expr.as_ref() {
            Expr::Call { fcn, params, .. } => match (crate::model::static_path(fcn), params.as_slice()) {
                (Some(name), [param]) if matches!(name.join(".").as_str(), "is_string" | "is_number" | "is_boolean") => Some(param),
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
    fn canonical(&self, expr: &ExprRef) -> Option<String> {
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
            let message = format!("`{}` holds leaves that may be null and {what}: use the leaves, each after its type test", expr.span().text());
            self.refuse(expr.span(), "null_leaf", message);
        }
        abs
    }

    fn negated(&mut self, expr: &ExprRef) {
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
                    let message = format!("under `not` the keys are literals or bound names, `{}` may be undefined: {advice}", index.span().text());
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

    fn membership_part(&mut self, expr: &ExprRef) -> Abs {
        if matches!(expr.as_ref(), Expr::BoolExpr { .. } | Expr::Membership { .. }) {
            self.refuse(expr.span(), "precedence", "`in` next to a comparison is read differently: bind one of them first");
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
            Expr::Object { fields, .. } => self.members(fields.iter().flat_map(|(_, k, v)| [k, v])),
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
            self.refuse(span, "not_an_integer", format!("`{text}`: only integers of up to 18 digits are the same in both engines"));
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

    fn arithmetic(&mut self, span: &Span, op: &ArithOp, lhs: &ExprRef, rhs: &ExprRef) -> Abs {
        if *op == ArithOp::Div {
            self.refuse(span, "division", "a quotient may be a fraction, on which the engines differ: multiply the other side");
        }
        let left = self.operand(lhs, "meets arithmetic");
        let right = self.operand(rhs, "meets arithmetic");
        let difference = *op == ArithOp::Sub && left.sets && right.sets;
        Abs { sets: difference, scalar: !difference, ..Abs::plain() }
    }

    fn comparison(&mut self, op: &BoolOp, lhs: &ExprRef, rhs: &ExprRef) -> Abs {
        for side in [lhs, rhs] {
            if matches!(side.as_ref(), Expr::BoolExpr { .. } | Expr::Membership { .. }) {
                self.refuse(side.span(), "precedence", "a comparison of a comparison is read differently: bind one of them first");
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
            self.refuse(key.span(), "membership", "`key, value in collection` answers wrongly for sets and absent keys: write `collection[key] == value`");
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

    fn reference(&mut self, expr: &ExprRef) -> Abs {
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
            Place::Rule { path, used } => (self.rule(span, &path, name == "data" && steps[used..].iter().any(|s| s.text().is_none())), used),
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
        let listed = |list: fn(&Frame) -> &Vec<String>| known.as_ref().is_some_and(|text| self.frames.iter().any(|f| list(f).contains(text)));
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
                self.refuse(index.span(), "wildcard", "`[_]` stands in a statement of its own only: write `some x in collection`");
            }
            return;
        }
        // The engine takes a variable of `every` for a new one, to be found by iterating.
        let every = |name: &str| self.frames.iter().any(|f| f.every && f.locals.iter().any(|(known, _)| known == name));
        if matches!(index.as_ref(), Expr::Var { span, .. } if every(span.text())) && !self.wildcard {
            let message = "a variable of `every` as a key here is iterated, not looked up: use object.get(collection, key, null)";
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
        if params.len() != builtin.arity {
            self.refuse(span, "arity", format!("`{name}` takes {} arguments, {} are given: bind the result with `:=`", builtin.arity, params.len()));
        } else if let Err(what) = calls::check_arguments(&name, params) {
            self.refuse(span, "argument", format!("`{name}`: {what}"));
        }
        for param in params {
            let given = if builtin.null_is_fine { self.term(param) } else { self.operand(param, "is given to a function") };
            if name == "sprintf" && given.sets {
                self.refuse(param.span(), "argument", "`sprintf`: sets print differently: state is_string or is_number of the value before, or give count() of it");
            }
            abs = abs.join(&Abs { path: None, null: false, ..given });
        }
        match builtin.gives {
            Gives::Scalar => Abs::scalar(),
            Gives::Parts => Abs { scalar: false, ..abs },
            Gives::Set => Abs { sets: true, scalar: false, ..abs },
        }
    }

    fn function(&mut self, span: &Span, path: &Path, given: usize) -> Abs {
        self.reads.push(path.clone());
        match self.model.rules[path].kind {
            Kind::Function(arity) if arity == given => {}
            Kind::Function(arity) => self.refuse(span, "arity", format!("the function takes {arity} arguments, {given} are given: bind the result with `:=`")),
            _ => self.refuse(span, "call", "this rule is not a function: remove the brackets"),
        }
        self.values.get(path).cloned().unwrap_or_default()
    }

    /// `with` is for tests, where it replaces whole documents by known values.
    fn with(&mut self, stmt: &LiteralStmt) {
        let Some(first) = stmt.with_mods.first() else { return };
        if !self.testing {
            self.refuse(&first.span, "with", "`with` stands in packages named `…_test` only: pass the value to a function");
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
                self.refuse(&modifier.span, "with", "only `input` and `data` are replaced: functions keep their meaning");
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
                        regorus::unstable::Rule::Spec { head: regorus::unstable::RuleHead::Compr { assign: Some(assign), .. }, bodies, .. } => {
                            bodies.is_empty() && certain(&assign.value, &|_| false)
                        }
                        _ => false,
                    })
            })
        };
        certain(expr, &|name| self.is_local(name) || constant(name))
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
