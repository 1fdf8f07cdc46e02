//! The terms of a plan: what they are for the input at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::Result;
use regorus::unstable::comparison::compare;
use regorus::unstable::numbers::arithmetic_operation;
use regorus::unstable::sets::{difference, intersection, union};
use regorus::unstable::{ArithOp, BinOp, BoolOp};
use regorus::utils::limits::check_memory_limit_if_needed;
use regorus::Value;

use super::evaluate::{entry, undefined, Evaluation, Go};
use super::{Alike, BuiltIn, Calculated, Call, Combined, Function, Gathered, Kind, Record, Term};

/// Entries among which one is found sooner by its place than by its text.
const MOST_FIELDS: usize = 24;

/// Most sets that are gathered have nothing in them.
static EMPTY_SET: LazyLock<Value> = LazyLock::new(Value::new_set);

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
                    value = field(value, self.seen(key)?, &part.foreign);
                }
                Some(value)
            }
            Term::Field { local, key, foreign } => Some(field(&self.locals[self.base + *local as usize], key, foreign)),
            _ => None,
        }
    }

    pub(super) fn term(&mut self, term: &'p Term) -> Result<Value> {
        match term {
            Term::Known(value) => Ok(value.clone()),
            Term::Local(place) => Ok(self.locals[self.base + place].clone()),
            Term::Input(place) => Ok(self.input[*place].clone()),
            Term::Rule(number) => {
                self.rule(*number)?;
                Ok(self.rules[*number].clone().unwrap_or(Value::Undefined))
            }
            Term::Part(part) => {
                if let Some(value) = self.seen(term) {
                    return Ok(value.clone());
                }
                let mut value = self.term(&part.whole)?;
                for key in &part.keys {
                    let key = self.term(key)?;
                    value = value[&key].clone();
                }
                Ok(value)
            }
            Term::Field { local, key, foreign } => {
                Ok(field(&self.locals[self.base + *local as usize], key, foreign).clone())
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
            Term::Alike(alike) => self.alike(alike),
            Term::Among(element, items) => self.among(element, items),
            Term::Record(record) => self.record(record),
        }
    }

    /// All of them, or none where one is undefined.
    fn terms(&mut self, terms: &'p [Term]) -> Result<Option<Vec<Value>>> {
        let mut values = Vec::with_capacity(terms.len());
        for term in terms {
            let value = self.term(term)?;
            if undefined(&value) {
                return Ok(None);
            }
            values.push(value);
        }
        Ok(Some(values))
    }

    /// Put all of them behind the locals, each worked out even where one is undefined, so that an error in another shows.
    /// Whether all are defined.
    fn arguments(&mut self, terms: &'p [Term]) -> Result<bool> {
        let mut defined = true;
        for term in terms {
            let value = self.term(term)?;
            defined = defined && !undefined(&value);
            self.locals.push(value);
        }
        Ok(defined)
    }

    fn object(&mut self, pairs: &'p [(Term, Term)]) -> Result<Value> {
        let mut object = BTreeMap::new();
        for (key, value) in pairs {
            let (key, value) = (self.term(key)?, self.term(value)?);
            if undefined(&key) || undefined(&value) {
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
                    if !undefined(&value) {
                        found.insert(value);
                    }
                    Ok(Go::On)
                })?;
                Ok(if found.is_empty() { EMPTY_SET.clone() } else { Value::from(found) })
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
                    if !undefined(&value) {
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
        let (plan, start) = (self.plan, self.locals.len());
        let mut value = Value::Undefined;
        if self.arguments(&call.arguments)? {
            value = self.complete(&plan.rules[call.rule].definitions, start, &call.span)?;
        }
        self.locals.truncate(start);
        Ok(value)
    }

    fn built_in(&mut self, built_in: &'p BuiltIn) -> Result<Value> {
        let start = self.locals.len();
        let mut value = Value::Undefined;
        if self.arguments(&built_in.arguments)? {
            self.tick()?;
            let (span, arguments) = (&built_in.span, &self.locals[start..]);
            value = match &built_in.function {
                Function::Own(callable) => callable(arguments).map_err(|error| span.error(&error.to_string()))?,
                Function::Engine((function, _)) => function(span, &built_in.written, arguments, true)?,
            };
            check_memory_limit_if_needed()?;
        }
        self.locals.truncate(start);
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
        if undefined(&left) || undefined(&right) {
            return Ok(Value::Undefined);
        }
        let (one, other) = &calculated.written;
        let sets = matches!(left, Value::Set(_)) || matches!(right, Value::Set(_));
        if calculated.op == ArithOp::Sub && sets {
            return match (&left, &right) {
                (Value::Set(from), Value::Set(taken)) if from.is_empty() || taken.is_empty() => Ok(left),
                _ => difference(one, other, left, right),
            };
        }
        arithmetic_operation(&calculated.span, &calculated.op, one, other, left, right, true)
    }

    fn combined(&mut self, combined: &'p Combined) -> Result<Value> {
        let (left, right) = (self.term(&combined.sides.0)?, self.term(&combined.sides.1)?);
        if undefined(&left) || undefined(&right) {
            return Ok(Value::Undefined);
        }
        let (one, other) = &combined.written;
        match (combined.op.clone(), &left, &right) {
            (BinOp::Union, Value::Set(_), Value::Set(added)) if added.is_empty() => Ok(left),
            (BinOp::Union, Value::Set(to), Value::Set(_)) if to.is_empty() => Ok(right),
            (BinOp::Union, ..) => union(one, other, left, right),
            (BinOp::Intersection, ..) => intersection(one, other, left, right),
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

    /// What comparing the array with what is known gives, without making it.
    fn alike(&mut self, alike: &'p Alike) -> Result<Value> {
        let mut same = alike.items.len() == alike.wanted.len();
        for (place, item) in alike.items.iter().enumerate() {
            let wanted = alike.wanted.get(place);
            let one = match self.seen(item) {
                Some(Value::Undefined) => return Ok(Value::Undefined),
                Some(value) => wanted == Some(value),
                None => {
                    let value = self.term(item)?;
                    if undefined(&value) {
                        return Ok(Value::Undefined);
                    }
                    wanted == Some(&value)
                }
            };
            same = same && one;
        }
        Ok(Value::Bool(same == alike.equal))
    }

    /// As `member`, of an array that is not made. It is undefined where an item is.
    fn among(&mut self, element: &'p Term, items: &'p [Term]) -> Result<Value> {
        let element = self.term(element)?;
        let mut found = false;
        for item in items {
            let value = self.term(item)?;
            if undefined(&value) {
                return Ok(Value::Bool(false));
            }
            found = found || value == element;
        }
        Ok(Value::Bool(found && !undefined(&element)))
    }

    /// An object whose keys are written down: worked out in the order written, put together in the order of the keys.
    fn record(&mut self, record: &'p Record) -> Result<Value> {
        let start = self.locals.len();
        for term in &record.values {
            let value = self.term(term)?;
            if undefined(&value) {
                self.locals.truncate(start);
                return Ok(Value::Undefined);
            }
            self.locals.push(value);
        }
        let found = &mut self.locals[start..];
        let pairs =
            record.keys.iter().map(|(key, place)| (key.clone(), std::mem::replace(&mut found[*place], Value::Null)));
        let object: BTreeMap<Value, Value> = pairs.collect();
        self.locals.truncate(start);
        Ok(Value::from(object))
    }
}

/// `whole[key]`. Texts that are written down are one each, so in an object that is made with them the key's own place says
/// which entry it is; in any other, it is looked for as always.
fn field<'v>(whole: &'v Value, key: &Value, foreign: &AtomicBool) -> &'v Value {
    if foreign.load(Ordering::Relaxed) {
        return &whole[key];
    }
    if let (Value::Object(entries), Value::String(wanted)) = (whole, key) {
        let own = |name: &Value| matches!(name, Value::String(text) if Arc::ptr_eq(text, wanted));
        if let Some((_, value)) = entries.iter_sorted().take(MOST_FIELDS).find(|(name, _)| own(name)) {
            return value;
        }
        foreign.store(true, Ordering::Relaxed);
    }
    &whole[key]
}

fn compared(op: &BoolOp, left: &Value, right: &Value) -> Result<Value> {
    if undefined(left) || undefined(right) {
        return Ok(Value::Undefined);
    }
    compare(op, left, right)
}

fn member(element: &Value, collection: &Value) -> bool {
    match collection {
        _ if undefined(element) => false,
        Value::Array(items) => items.contains(element),
        Value::Set(items) => items.contains(element),
        Value::Object(entries) => entries.values().any(|item| item == element),
        _ => false,
    }
}
