//! From the syntax tree of an accepted bundle to a plan.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{AssignOp, Expr, ExprRef, Literal, LiteralStmt, Query, Ref, RuleBody, RuleHead, BUILTINS};
use regorus::Value;

use super::input::Parts;
use super::known::{compared, known, member, object, part, Items};
use super::{
    Body, BuiltIn, Calculated, Call, Combined, Definition, Each, Function, Gathered, Kind, Parameter, Plan, Rule, Step,
    Term,
};
use crate::builtins::Callables;
use crate::model::{self, flatten, static_path, Model, Path, Place};
use crate::refuse::is_wildcard;

/// The plan of what `entrypoint` (its path below `data`) reads; `None` when something in it has no place in a plan.
pub fn compile(model: &Model, callables: &Callables, entrypoint: &Path) -> Option<Plan> {
    let mut rules = Rules {
        model,
        callables,
        input: Parts::default(),
        numbers: BTreeMap::new(),
        texts: BTreeSet::new(),
        waiting: vec![],
    };
    let entrypoint = rules.number(entrypoint)?;
    let mut done = BTreeMap::new();
    while let Some((number, path)) = rules.waiting.pop() {
        done.insert(number, rules.rule(&path)?);
    }
    rules.input.finish();
    Some(Plan { input: rules.input, rules: done.into_values().collect(), entrypoint })
}

struct Rules<'m> {
    model: &'m Model,
    callables: &'m Callables,
    input: Parts,
    numbers: BTreeMap<Path, usize>,
    /// Each text that is written down, once: what is made with it is found again by its place in memory.
    texts: BTreeSet<Value>,
    /// Numbered, and not yet compiled.
    waiting: Vec<(usize, Path)>,
}

impl Rules<'_> {
    fn number(&mut self, path: &Path) -> Option<usize> {
        if let Some(number) = self.numbers.get(path) {
            return Some(*number);
        }
        if !self.model.rules.contains_key(path) {
            return None;
        }
        let number = self.numbers.len();
        self.numbers.insert(path.clone(), number);
        self.waiting.push((number, path.clone()));
        Some(number)
    }

    fn text(&mut self, value: Value) -> Value {
        if let Some(known) = self.texts.get(&value) {
            return known.clone();
        }
        self.texts.insert(value.clone());
        value
    }

    fn rule(&mut self, path: &Path) -> Option<Rule> {
        let model = self.model;
        let entry = &model.rules[path];
        let kind = match entry.kind {
            model::Kind::Complete => Kind::Complete,
            model::Kind::Set => Kind::Set,
            model::Kind::Object => Kind::Object,
            model::Kind::Function(_) => Kind::Function,
        };
        let default = match &entry.default {
            Some(value) => match Writer::new(self, 0).term(value)? {
                Term::Known(value) => Some(value),
                _ => return None,
            },
            None => None,
        };
        let mut definitions = Vec::new();
        for (module, rule) in &entry.defs {
            definitions.push(self.definition(*module, rule)?);
        }
        Some(Rule { kind, default, definitions, span: entry.span.clone() })
    }

    fn definition(&mut self, module: usize, rule: &Ref<regorus::unstable::Rule>) -> Option<Definition> {
        let regorus::unstable::Rule::Spec { head, bodies, .. } = rule.as_ref() else { return None };
        let (key, value, parameters): (Option<&ExprRef>, Option<&ExprRef>, &[ExprRef]) = match head {
            RuleHead::Compr { refr, assign, .. } => {
                let key = match refr.as_ref() {
                    Expr::RefBrack { index, .. } => Some(index),
                    _ => None,
                };
                (key, assign.as_ref().map(|a| &a.value), &[])
            }
            RuleHead::Set { key, .. } => (Some(key.as_ref()?), None, &[]),
            RuleHead::Func { args, assign, .. } => (None, assign.as_ref().map(|a| &a.value), args),
        };
        let mut written = Vec::new();
        let mut locals = 0;
        let mut own = Vec::new();
        // A rule without a body has one that always succeeds.
        let walked: Vec<Option<&RuleBody>> =
            if bodies.is_empty() { vec![None] } else { bodies.iter().map(Some).collect() };
        for body in walked {
            let mut writer = Writer::new(self, module);
            own = writer.parameters(parameters)?;
            let is_else = body.is_some_and(|b| b.is_else);
            let steps = match body {
                Some(body) => writer.steps(&body.query)?,
                None => Box::default(),
            };
            let head = if is_else { body.and_then(|b| b.assign.as_ref()).map(|a| &a.value) } else { value };
            let value = head.map(|value| writer.term(value)).map_or(Some(None), |term| term.map(Some))?;
            let key = key.map(|key| writer.term(key)).map_or(Some(None), |term| term.map(Some))?;
            locals = locals.max(writer.used);
            written.push(Body { steps, key, value });
        }
        Some(Definition { parameters: own.into(), bodies: written.into(), locals })
    }
}

/// Writes one body: the names it binds so far, and the steps of the query it is in.
struct Writer<'r, 'm> {
    rules: &'r mut Rules<'m>,
    module: usize,
    names: Vec<(String, usize)>,
    used: usize,
    /// Iterations that `collection[_]` in the statement at hand stands for.
    hoisted: Vec<Step>,
}

impl<'r, 'm> Writer<'r, 'm> {
    fn new(rules: &'r mut Rules<'m>, module: usize) -> Self {
        Self { rules, module, names: vec![], used: 0, hoisted: vec![] }
    }

    fn fresh(&mut self) -> usize {
        let place = self.used;
        self.used = self.used.saturating_add(1);
        place
    }

    /// Bind a name from here on; `_` binds nothing.
    fn bind(&mut self, name: &str) -> Option<usize> {
        if name == "_" {
            return None;
        }
        let place = self.fresh();
        self.names.push((name.to_string(), place));
        Some(place)
    }

    fn bound(&mut self, pattern: &ExprRef) -> Option<Option<usize>> {
        match pattern.as_ref() {
            Expr::Var { span, .. } => Some(self.bind(span.text())),
            _ => None,
        }
    }

    fn local(&self, name: &str) -> Option<usize> {
        self.names.iter().rev().find(|(known, _)| known == name).map(|(_, place)| *place)
    }

    fn parameters(&mut self, written: &[ExprRef]) -> Option<Vec<Parameter>> {
        let mut found = Vec::new();
        for parameter in written {
            found.push(match parameter.as_ref() {
                Expr::Var { span, .. } if span.text() != "_" => {
                    let place = self.fresh();
                    self.names.push((span.text().to_string(), place));
                    Parameter::Bound
                }
                other => {
                    // Its place is left empty.
                    self.fresh();
                    match other {
                        Expr::Var { .. } => Parameter::Any,
                        _ => match self.term(parameter)? {
                            Term::Known(value) => Parameter::Equal(value),
                            _ => return None,
                        },
                    }
                }
            });
        }
        Some(found)
    }

    fn steps(&mut self, query: &Query) -> Option<Box<[Step]>> {
        let outer = std::mem::take(&mut self.hoisted);
        let mut steps = Vec::new();
        for statement in &query.stmts {
            let step = self.step(statement)?;
            steps.append(&mut self.hoisted);
            steps.push(step);
        }
        self.hoisted = outer;
        Some(steps.into())
    }

    fn step(&mut self, statement: &LiteralStmt) -> Option<Step> {
        if !statement.with_mods.is_empty() {
            return None;
        }
        Some(match &statement.literal {
            Literal::SomeVars { .. } => return None,
            Literal::SomeIn { span, key, value, collection } => {
                let collection = self.term(collection)?;
                let key = match key {
                    Some(key) => self.bound(key)?,
                    None => None,
                };
                let value = self.bound(value)?;
                Step::Each(Box::new(Each { collection, key, value, some: Some(span.clone()) }))
            }
            Literal::Every { key, value, domain, query, .. } => {
                let collection = self.term(domain)?;
                let known = self.names.len();
                let key = key.as_ref().and_then(|key| self.bind(key.text()));
                let value = self.bind(value.text());
                let steps = self.steps(query)?;
                self.names.truncate(known);
                Step::Every(Box::new(Each { collection, key, value, some: None }), steps)
            }
            Literal::NotExpr { expr, .. } => Step::Fails(self.term(expr)?),
            Literal::Expr { expr, .. } => match expr.as_ref() {
                Expr::AssignExpr { op: AssignOp::ColEq, lhs, rhs, .. } => {
                    let term = self.term(rhs)?;
                    match self.bound(lhs)? {
                        Some(place) => Step::Bind(place, term),
                        // `_ := x` asks only whether there is a value.
                        None => Step::Bind(self.fresh(), term),
                    }
                }
                _ => Step::Holds(self.term(expr)?),
            },
        })
    }

    fn term(&mut self, expr: &ExprRef) -> Option<Term> {
        Some(match expr.as_ref() {
            Expr::String { value, .. } | Expr::RawString { value, .. } => Term::Known(self.rules.text(value.clone())),
            Expr::Number { value, .. } | Expr::Bool { value, .. } | Expr::Null { value, .. } => {
                Term::Known(value.clone())
            }
            Expr::UnaryExpr { expr, .. } => match expr.as_ref() {
                Expr::Number { value: Value::Number(number), .. } => {
                    Term::Known(Value::from(number.as_i64()?.checked_neg()?))
                }
                _ => return None,
            },
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.reference(expr)?,
            Expr::Array { items, .. } => match self.terms(items)? {
                Items::Known(values) => Term::Known(Value::from(values)),
                Items::Terms(terms) => Term::Array(terms),
            },
            Expr::Set { items, .. } => match self.terms(items)? {
                Items::Known(values) => Term::Known(Value::from(values.into_iter().collect::<BTreeSet<_>>())),
                Items::Terms(terms) => Term::Set(terms),
            },
            Expr::Object { fields, .. } => {
                let mut pairs = Vec::new();
                for (_, key, value) in fields {
                    pairs.push((self.term(key)?, self.term(value)?));
                }
                object(pairs)
            }
            Expr::ArrayCompr { span, term, query, .. } => self.gathered(Kind::Complete, span, query, None, term)?,
            Expr::SetCompr { span, term, query, .. } => self.gathered(Kind::Set, span, query, None, term)?,
            Expr::ObjectCompr { span, key, value, query, .. } => {
                self.gathered(Kind::Object, span, query, Some(key), value)?
            }
            Expr::Call { .. } => self.call(expr)?,
            Expr::BinExpr { op, lhs, rhs, .. } => {
                let sides = (self.term(lhs)?, self.term(rhs)?);
                let written = (lhs.clone(), rhs.clone());
                Term::Combined(Box::new(Combined { op: op.clone(), sides, written }))
            }
            Expr::ArithExpr { span, op, lhs, rhs, .. } => {
                let sides = (self.term(lhs)?, self.term(rhs)?);
                let written = (lhs.clone(), rhs.clone());
                Term::Calculated(Box::new(Calculated { op: op.clone(), sides, span: span.clone(), written }))
            }
            Expr::BoolExpr { op, lhs, rhs, .. } => compared(op.clone(), self.term(lhs)?, self.term(rhs)?),
            Expr::Membership { key: None, value, collection, .. } => member(self.term(value)?, self.term(collection)?),
            Expr::Membership { .. } | Expr::AssignExpr { .. } => return None,
        })
    }

    fn terms(&mut self, written: &[ExprRef]) -> Option<Items> {
        let terms = written.iter().map(|item| self.term(item)).collect::<Option<Vec<_>>>()?;
        let known: Option<Vec<Value>> = terms.iter().map(known).collect();
        Some(known.map_or_else(|| Items::Terms(terms.into()), Items::Known))
    }

    fn gathered(
        &mut self,
        into: Kind,
        span: &regorus::unstable::Span,
        query: &Query,
        key: Option<&ExprRef>,
        value: &ExprRef,
    ) -> Option<Term> {
        let known = self.names.len();
        let steps = self.steps(query)?;
        let key = match key {
            Some(key) => Some(self.term(key)?),
            None => None,
        };
        let value = self.term(value)?;
        self.names.truncate(known);
        Some(Term::Gathered(Box::new(Gathered { into, steps, key, value, span: span.clone() })))
    }

    fn call(&mut self, expr: &ExprRef) -> Option<Term> {
        let Expr::Call { span, fcn, params, .. } = expr.as_ref() else { return None };
        let name = static_path(fcn)?;
        let (_, steps) = flatten(fcn);
        let arguments = params.iter().map(|param| self.term(param)).collect::<Option<Box<[_]>>>()?;
        if let Place::Rule { path, .. } = self.rules.model.place(self.module, &name[0], &steps) {
            let rule = self.rules.number(&path)?;
            return Some(Term::Call(Box::new(Call { rule, arguments, span: span.clone() })));
        }
        let name = name.join(".");
        let function = match self.rules.callables.get(name.as_str()) {
            Some((callable, _)) => Function::Own(callable.clone()),
            None => Function::Engine(*BUILTINS.get(name.as_str())?),
        };
        let written = params.iter().cloned().collect();
        Some(Term::BuiltIn(Box::new(BuiltIn { function, arguments, span: span.clone(), written })))
    }

    fn reference(&mut self, expr: &ExprRef) -> Option<Term> {
        let (root, steps) = flatten(expr);
        let Expr::Var { span, .. } = root else { return None };
        let name = span.text();
        let (mut whole, used) = if let Some(place) = self.local(name) {
            (Term::Local(place), 0)
        } else {
            match self.rules.model.place(self.module, name, &steps) {
                Place::Input => {
                    let path: Vec<Value> = steps.iter().map_while(fixed).collect();
                    let used = path.len();
                    (Term::Input(self.rules.input.place(path)), used)
                }
                Place::Rule { path, used } => (Term::Rule(self.rules.number(&path)?), used),
                Place::Base { path, used } => (Term::Known(self.rules.model.base(&path).clone()), used),
                Place::Local | Place::Package | Place::Missing(_) => return None,
            }
        };
        let mut keys: Vec<Term> = Vec::new();
        for step in steps.get(used..)? {
            match step {
                model::Step::Index(index) if is_wildcard(index) => {
                    let element = self.fresh();
                    let collection = part(whole, std::mem::take(&mut keys));
                    self.hoisted.push(Step::Each(Box::new(Each {
                        collection,
                        key: None,
                        value: Some(element),
                        some: None,
                    })));
                    whole = Term::Local(element);
                }
                model::Step::Index(index) => keys.push(self.term(index)?),
                model::Step::Field(field) => keys.push(Term::Known(self.rules.text(Value::from(*field)))),
            }
        }
        Some(part(whole, keys))
    }
}

/// A key that is written down.
fn fixed(step: &model::Step<'_>) -> Option<Value> {
    match step {
        model::Step::Field(field) => Some(Value::from(*field)),
        model::Step::Index(index) => match index.as_ref() {
            Expr::String { value, .. } | Expr::RawString { value, .. } | Expr::Number { value, .. } => {
                Some(value.clone())
            }
            _ => None,
        },
    }
}
