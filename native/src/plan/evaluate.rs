//! One evaluation of a plan: every rule at most once, every step under the limits of time and memory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Result};
use regorus::unstable::Span;
use regorus::utils::limits::check_memory_limit_if_needed;
use regorus::{LimitError, Value};

use super::{Body, Definition, Each, Kind, Parameter, Plan, Step, Term};

/// Steps between two looks at the clock.
const BETWEEN_LOOKS: u32 = 32;
/// Names that are bound at one time, ordinarily; for more, room is made.
const LOCALS: usize = 128;

/// The value of the plan's entrypoint for the parts of an input document (`plan.input`), or `Undefined`. Fails as the interpreter does, and with `LimitError`
/// once `until` is past.
pub fn evaluate<'p>(plan: &'p Plan, input: &'p [Value], start: Instant, limit: Duration) -> Result<Value> {
    let rules = plan.rules.iter().map(|_| None).collect();
    let mut evaluation = Evaluation {
        plan,
        input,
        rules,
        locals: Vec::with_capacity(LOCALS),
        base: 0,
        start,
        limit,
        ticks: BETWEEN_LOOKS,
    };
    evaluation.rule(plan.entrypoint)?;
    Ok(evaluation.rules[plan.entrypoint].take().unwrap_or(Value::Undefined))
}

/// Whether an iteration goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Go {
    On,
    Enough,
}

type Then<'t, 'p> = &'t mut dyn FnMut(&mut Evaluation<'p>) -> Result<Go>;

pub(super) struct Evaluation<'p> {
    pub(super) plan: &'p Plan,
    /// What the plan reads of the input document, by place.
    pub(super) input: &'p [Value],
    /// What rules were found to be.
    pub(super) rules: Vec<Option<Value>>,
    /// The names of all definitions under way; those of the innermost from `base` on.
    pub(super) locals: Vec<Value>,
    pub(super) base: usize,
    start: Instant,
    limit: Duration,
    ticks: u32,
}

impl<'p> Evaluation<'p> {
    /// To be called wherever work may repeat.
    pub(super) fn tick(&mut self) -> Result<()> {
        check_memory_limit_if_needed()?;
        self.ticks -= 1;
        if self.ticks == 0 {
            self.ticks = BETWEEN_LOOKS;
            let elapsed = self.start.elapsed();
            if elapsed > self.limit {
                return Err(LimitError::TimeLimitExceeded { elapsed, limit: self.limit }.into());
            }
        }
        Ok(())
    }

    fn set(&mut self, place: Option<usize>, value: &Value) {
        if let Some(place) = place {
            self.locals[self.base + place] = value.clone();
        }
    }

    pub(super) fn rule(&mut self, number: usize) -> Result<()> {
        if self.rules[number].is_some() {
            return Ok(());
        }
        let plan = self.plan;
        let rule = &plan.rules[number];
        let mut value = match rule.kind {
            Kind::Set => self.set_rule(&rule.definitions)?,
            Kind::Object => self.object_rule(&rule.definitions, &rule.span)?,
            Kind::Complete | Kind::Function => self.complete(&rule.definitions, self.locals.len(), &rule.span)?,
        };
        if undefined(&value) {
            value = rule.default.clone().unwrap_or(Value::Undefined);
        }
        self.rules[number] = Some(value);
        Ok(())
    }

    /// Give a definition room for its names, and take it back. Its arguments are the locals from `start` on, and stay.
    fn within<T>(
        &mut self,
        definition: &'p Definition,
        start: usize,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let outer = self.base;
        let arguments = self.locals.len();
        self.locals.resize(start + definition.locals, Value::Undefined);
        self.base = start;
        let found = work(self);
        self.locals.truncate(arguments);
        self.base = outer;
        found
    }

    /// The one value of all definitions that fit the arguments, which are the locals from `start` on.
    pub(super) fn complete(&mut self, definitions: &'p [Definition], start: usize, place: &Span) -> Result<Value> {
        let mut found = Value::Undefined;
        for definition in definitions {
            let arguments = &self.locals[start..];
            let fits = definition.parameters.iter().zip(arguments).all(|(parameter, value)| match parameter {
                Parameter::Equal(wanted) => wanted == value,
                Parameter::Any | Parameter::Bound => true,
            });
            if !fits {
                continue;
            }
            let value = self.within(definition, start, |this| this.first(definition, place))?;
            one_value(&mut found, value, place)?;
        }
        Ok(found)
    }

    /// The value of the first body that has one.
    fn first(&mut self, definition: &'p Definition, place: &Span) -> Result<Value> {
        for body in &definition.bodies {
            let mut found = Value::Undefined;
            self.steps(&body.steps, &mut |this| {
                let value = match &body.value {
                    None => Value::Bool(true),
                    Some(term) => this.term(term)?,
                };
                one_value(&mut found, value, place)?;
                // What never varies need not be found twice.
                Ok(if matches!(body.value, None | Some(Term::Known(_))) { Go::Enough } else { Go::On })
            })?;
            if !undefined(&found) {
                return Ok(found);
            }
        }
        Ok(Value::Undefined)
    }

    fn set_rule(&mut self, definitions: &'p [Definition]) -> Result<Value> {
        let mut found = BTreeSet::new();
        self.all(definitions, &mut |this, body| {
            if let Some(key) = &body.key {
                let key = this.term(key)?;
                if !undefined(&key) {
                    found.insert(key);
                }
            }
            Ok(Go::On)
        })?;
        Ok(Value::from(found))
    }

    fn object_rule(&mut self, definitions: &'p [Definition], place: &Span) -> Result<Value> {
        let mut found = BTreeMap::new();
        self.all(definitions, &mut |this, body| {
            if let (Some(key), Some(value)) = (&body.key, &body.value) {
                let (key, value) = (this.term(key)?, this.term(value)?);
                entry(&mut found, key, value, place)?;
            }
            Ok(Go::On)
        })?;
        Ok(Value::from(found))
    }

    fn all(
        &mut self,
        definitions: &'p [Definition],
        then: &mut dyn FnMut(&mut Self, &'p Body) -> Result<Go>,
    ) -> Result<()> {
        for definition in definitions {
            self.within(definition, self.locals.len(), |this| {
                for body in &definition.bodies {
                    this.steps(&body.steps, &mut |this| then(this, body))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Do `then` for each way in which all steps succeed.
    pub(super) fn steps(&mut self, steps: &'p [Step], then: Then<'_, 'p>) -> Result<Go> {
        for (at, step) in steps.iter().enumerate() {
            self.tick()?;
            let goes_on = match step {
                Step::Holds(term) => self.holds(term)?,
                Step::Fails(term) => !self.holds(term)?,
                Step::Bind(place, term) => {
                    let value = self.term(term)?;
                    let defined = !undefined(&value);
                    let at = self.base + place;
                    self.locals[at] = value;
                    defined
                }
                Step::Every(each, body) => self.every(each, body)?,
                Step::Each(each) => {
                    let rest = &steps[at + 1..];
                    let collection = self.collection(each)?;
                    return self.each(&collection, each, &mut |this| this.steps(rest, then));
                }
            };
            if !goes_on {
                return Ok(Go::On);
            }
        }
        then(self)
    }

    /// Defined, and not false.
    fn holds(&mut self, term: &'p Term) -> Result<bool> {
        let passes = |value: &Value| !matches!(value, Value::Undefined | Value::Bool(false));
        if let Some(value) = self.seen(term) {
            return Ok(passes(value));
        }
        Ok(passes(&self.term(term)?))
    }

    fn collection(&mut self, each: &'p Each) -> Result<Value> {
        let collection = self.term(&each.collection)?;
        match (&collection, &each.some) {
            (Value::Array(_) | Value::Set(_) | Value::Object(_) | Value::Undefined, _) | (_, None) => Ok(collection),
            (_, Some(place)) => Err(place.error("`some … in` takes an array, a set or an object")),
        }
    }

    fn each(&mut self, collection: &Value, each: &Each, work: Then<'_, 'p>) -> Result<Go> {
        match collection {
            Value::Array(items) => {
                for (number, value) in items.iter().enumerate() {
                    if each.key.is_some() {
                        self.set(each.key, &Value::from(number));
                    }
                    if self.element(each, None, value, work)? == Go::Enough {
                        return Ok(Go::Enough);
                    }
                }
            }
            Value::Set(items) => {
                for value in items.iter() {
                    if self.element(each, Some(value), value, work)? == Go::Enough {
                        return Ok(Go::Enough);
                    }
                }
            }
            Value::Object(entries) => {
                for (key, value) in entries.iter() {
                    if self.element(each, Some(key), value, work)? == Go::Enough {
                        return Ok(Go::Enough);
                    }
                }
            }
            _ => {}
        }
        Ok(Go::On)
    }

    fn element(&mut self, each: &Each, key: Option<&Value>, value: &Value, work: Then<'_, 'p>) -> Result<Go> {
        self.tick()?;
        if let Some(key) = key {
            self.set(each.key, key);
        }
        self.set(each.value, value);
        work(self)
    }

    fn every(&mut self, each: &'p Each, body: &'p [Step]) -> Result<bool> {
        let collection = self.term(&each.collection)?;
        if !matches!(collection, Value::Array(_) | Value::Set(_) | Value::Object(_)) {
            return Ok(false);
        }
        let outcome = self.each(&collection, each, &mut |this| {
            let mut holds = false;
            this.steps(body, &mut |_| {
                holds = true;
                Ok(Go::Enough)
            })?;
            Ok(if holds { Go::On } else { Go::Enough })
        })?;
        Ok(outcome == Go::On)
    }
}

/// Asked at every step: the comparison of values would first find out what there is to compare.
pub(super) const fn undefined(value: &Value) -> bool {
    matches!(value, Value::Undefined)
}

/// A rule has one value, however often it is found.
fn one_value(found: &mut Value, value: Value, place: &Span) -> Result<()> {
    if undefined(found) {
        *found = value;
    } else if !undefined(&value) && *found != value {
        bail!(place.error("a rule or function has two values: its definitions conflict"));
    }
    Ok(())
}

/// A key has one value, however often it is found. Half an entry is none.
pub(super) fn entry(found: &mut BTreeMap<Value, Value>, key: Value, value: Value, place: &Span) -> Result<()> {
    if undefined(&key) || undefined(&value) {
        return Ok(());
    }
    match found.insert(key, value.clone()) {
        Some(before) if before != value => Err(anyhow!(place.error("a key has two values"))),
        _ => Ok(()),
    }
}
