//! The terms of a plan: what they are for the input at hand.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use regorus::unstable::comparison::compare;
use regorus::unstable::numbers::arithmetic_operation;
use regorus::unstable::sets::{difference, intersection, union};
use regorus::unstable::{ArithOp, BinOp, BoolOp};
use regorus::utils::limits::check_memory_limit_if_needed;
use regorus::Value;

use super::evaluate::{entry, Evaluation, Go};
use super::{BuiltIn, Calculated, Call, Combined, Function, Gathered, Kind, Term};

impl<'p> Evaluation<'p> {
    /// The value of a term that takes no work, in its place.
    pub(super) fn seen<'a>(&'a self, term: &'a Term) -> Option<&'a Value> {
        match term {
            Term::Known(value) => Some(value),
            Term::Local(place) => Some(&self.locals[self.base + place]),
            Term::Input(place) => Some(&self.input[*place]),
            Term::Rule(number) => self.rules[*number].as_ref(),
            Term::Part(part) => {
                let mut value = self.seen(&part.whole)?;
                for key in &part.keys {
                    value = &value[self.seen(key)?];
                }
                Some(value)
            }
            _ => None,
        }
    }

    pub(super) fn term(&mut self, term: &'p Term) -> Result<Value> {
        if let Some(value) = self.seen(term) {
            return Ok(value.clone());
        }
        match term {
            Term::Known(_) | Term::Local(_) | Term::Input(_) => Ok(Value::Undefined),
            Term::Rule(number) => {
                self.rule(*number)?;
                Ok(self.rules[*number].clone().unwrap_or(Value::Undefined))
            }
            Term::Part(part) => {
                let mut value = self.term(&part.whole)?;
                for key in &part.keys {
                    let key = self.term(key)?;
                    value = value[&key].clone();
                }
                Ok(value)
            }
            Term::Call(call) => self.call(call),
            Term::BuiltIn(built_in) => self.built_in(built_in),
            Term::Array(items) => Ok(self.terms(items)?.map_or(Value::Undefined, Value::from)),
            Term::Set(items) => {
                let found = self.terms(items)?;
                Ok(found.map_or(Value::Undefined, |items| Value::from(items.into_iter().collect::<BTreeSet<_>>())))
            }
            Term::Object(pairs) => self.object(pairs),
            Term::Gathered(gathered) => self.gathered(gathered),
            Term::Compared(op, sides) => self.compared(op, &sides.0, &sides.1),
            Term::Calculated(calculated) => self.calculated(calculated),
            Term::Combined(combined) => self.combined(combined),
            Term::Member(sides) => self.member(&sides.0, &sides.1),
        }
    }

    /// All of them, or none where one is undefined.
    fn terms(&mut self, terms: &'p [Term]) -> Result<Option<Vec<Value>>> {
        let mut values = Vec::with_capacity(terms.len());
        for term in terms {
            let value = self.term(term)?;
            if value == Value::Undefined {
                return Ok(None);
            }
            values.push(value);
        }
        Ok(Some(values))
    }

    /// All of them, each worked out even where one is undefined, so that an error in another shows.
    fn arguments(&mut self, terms: &'p [Term]) -> Result<Option<Vec<Value>>> {
        let values = terms.iter().map(|term| self.term(term)).collect::<Result<Vec<_>>>()?;
        Ok(if values.contains(&Value::Undefined) { None } else { Some(values) })
    }

    fn object(&mut self, pairs: &'p [(Term, Term)]) -> Result<Value> {
        let mut object = BTreeMap::new();
        for (key, value) in pairs {
            let (key, value) = (self.term(key)?, self.term(value)?);
            if key == Value::Undefined || value == Value::Undefined {
                return Ok(Value::Undefined);
            }
            object.insert(key, value);
        }
        Ok(Value::from(object))
    }

    fn gathered(&mut self, gathered: &'p Gathered) -> Result<Value> {
        let steps = &gathered.steps;
        match gathered.into {
            Kind::Set => {
                let mut found = BTreeSet::new();
                self.steps(steps, &mut |this| {
                    let value = this.term(&gathered.value)?;
                    if value != Value::Undefined {
                        found.insert(value);
                    }
                    Ok(Go::On)
                })?;
                Ok(Value::from(found))
            }
            Kind::Object => {
                let mut found = BTreeMap::new();
                self.steps(steps, &mut |this| {
                    if let Some(key) = &gathered.key {
                        let (key, value) = (this.term(key)?, this.term(&gathered.value)?);
                        entry(&mut found, key, value, &gathered.span)?;
                    }
                    Ok(Go::On)
                })?;
                Ok(Value::from(found))
            }
            Kind::Complete | Kind::Function => {
                let mut found = Vec::new();
                self.steps(steps, &mut |this| {
                    let value = this.term(&gathered.value)?;
                    if value != Value::Undefined {
                        found.push(value);
                    }
                    Ok(Go::On)
                })?;
                Ok(Value::from(found))
            }
        }
    }

    fn call(&mut self, call: &'p Call) -> Result<Value> {
        self.tick()?;
        let plan = self.plan;
        match self.arguments(&call.arguments)? {
            Some(arguments) => self.complete(&plan.rules[call.rule].definitions, &arguments, &call.span),
            None => Ok(Value::Undefined),
        }
    }

    fn built_in(&mut self, built_in: &'p BuiltIn) -> Result<Value> {
        let Some(arguments) = self.arguments(&built_in.arguments)? else { return Ok(Value::Undefined) };
        self.tick()?;
        let span = &built_in.span;
        let value = match &built_in.function {
            Function::Own(callable) => callable(&arguments).map_err(|error| span.error(&error.to_string()))?,
            Function::Engine((function, _)) => function(span, &built_in.written, &arguments, true)?,
        };
        check_memory_limit_if_needed()?;
        Ok(value)
    }

    fn compared(&mut self, op: &BoolOp, left: &'p Term, right: &'p Term) -> Result<Value> {
        if let (Some(left), Some(right)) = (self.seen(left), self.seen(right)) {
            return compared(op, left, right);
        }
        let left = self.term(left)?;
        if let Some(right) = self.seen(right) {
            return compared(op, &left, right);
        }
        let right = self.term(right)?;
        compared(op, &left, &right)
    }

    fn calculated(&mut self, calculated: &'p Calculated) -> Result<Value> {
        let (left, right) = (self.term(&calculated.sides.0)?, self.term(&calculated.sides.1)?);
        if left == Value::Undefined || right == Value::Undefined {
            return Ok(Value::Undefined);
        }
        let (one, other) = &calculated.written;
        let sets = matches!(left, Value::Set(_)) || matches!(right, Value::Set(_));
        if calculated.op == ArithOp::Sub && sets {
            return difference(one, other, left, right);
        }
        arithmetic_operation(&calculated.span, &calculated.op, one, other, left, right, true)
    }

    fn combined(&mut self, combined: &'p Combined) -> Result<Value> {
        let (left, right) = (self.term(&combined.sides.0)?, self.term(&combined.sides.1)?);
        if left == Value::Undefined || right == Value::Undefined {
            return Ok(Value::Undefined);
        }
        let (one, other) = &combined.written;
        match combined.op {
            BinOp::Union => union(one, other, left, right),
            BinOp::Intersection => intersection(one, other, left, right),
        }
    }

    /// Never undefined, as the loader sees to it that both sides are defined where that matters.
    fn member(&mut self, element: &'p Term, collection: &'p Term) -> Result<Value> {
        if let (Some(element), Some(collection)) = (self.seen(element), self.seen(collection)) {
            return Ok(Value::Bool(member(element, collection)));
        }
        let element = self.term(element)?;
        if let Some(collection) = self.seen(collection) {
            return Ok(Value::Bool(member(&element, collection)));
        }
        let collection = self.term(collection)?;
        Ok(Value::Bool(member(&element, &collection)))
    }
}

fn compared(op: &BoolOp, left: &Value, right: &Value) -> Result<Value> {
    if *left == Value::Undefined || *right == Value::Undefined {
        return Ok(Value::Undefined);
    }
    compare(op, left, right)
}

fn member(element: &Value, collection: &Value) -> bool {
    match collection {
        _ if *element == Value::Undefined => false,
        Value::Array(items) => items.contains(element),
        Value::Set(items) => items.contains(element),
        Value::Object(entries) => entries.values().any(|item| item == element),
        _ => false,
    }
}
