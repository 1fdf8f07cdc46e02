//! What is known when a bundle is loaded is worked out then: literals, and parts of data.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use regorus::unstable::BoolOp;
use regorus::Value;

use super::{Alike, Part, Record, Term};

pub(super) enum Items {
    Known(Vec<Value>),
    Terms(Box<[Term]>),
}

pub(super) fn known(term: &Term) -> Option<Value> {
    match term {
        Term::Known(value) if *value != Value::Undefined => Some(value.clone()),
        _ => None,
    }
}

pub(super) fn object(pairs: Vec<(Term, Term)>) -> Term {
    let known: Option<BTreeMap<Value, Value>> =
        pairs.iter().map(|(key, value)| Some((known(key)?, known(value)?))).collect();
    known.map_or_else(|| record(pairs), |known| Term::Known(Value::from(known)))
}

fn record(pairs: Vec<(Term, Term)>) -> Term {
    let written = |(place, (key, _)): (usize, &(Term, Term))| known(key).map(|key| (key, place));
    let keys: Option<BTreeMap<Value, usize>> = pairs.iter().enumerate().map(written).collect();
    match keys {
        Some(keys) if keys.len() == pairs.len() => {
            let values = pairs.into_iter().map(|(_, value)| value).collect();
            Term::Record(Box::new(Record { values, keys: keys.into_iter().collect() }))
        }
        _ => Term::Object(pairs.into()),
    }
}

/// A comparison; of an array that is written down with one that is known, without making it.
pub(super) fn compared(op: BoolOp, left: Term, right: Term) -> Term {
    let equal = matches!(op, BoolOp::Eq);
    match (left, right) {
        (Term::Array(items), Term::Known(Value::Array(wanted)))
        | (Term::Known(Value::Array(wanted)), Term::Array(items))
            if equal || matches!(op, BoolOp::Ne) =>
        {
            Term::Alike(Box::new(Alike { items, wanted: wanted.iter().cloned().collect(), equal }))
        }
        sides => Term::Compared(op, Box::new(sides)),
    }
}

pub(super) fn member(element: Term, collection: Term) -> Term {
    match collection {
        Term::Array(items) => Term::Among(Box::new(element), items),
        other => Term::Member(Box::new((element, other))),
    }
}

/// A part of a value; what is known of it is looked up now.
pub(super) fn part(whole: Term, keys: Vec<Term>) -> Term {
    let mut rest = keys.into_iter().peekable();
    let whole = match whole {
        Term::Known(mut value) => {
            while let Some(key) = rest.next_if(|key| known(key).is_some()).as_ref().and_then(known) {
                value = value[&key].clone();
            }
            Term::Known(value)
        }
        other => other,
    };
    let keys: Box<[Term]> = rest.collect();
    match (&whole, &keys[..]) {
        (_, []) => return whole,
        (Term::Local(place), [Term::Known(key)]) => {
            if let Ok(local) = u32::try_from(*place) {
                return Term::Field { local, key: key.clone(), foreign: AtomicBool::new(false) };
            }
        }
        _ => {}
    }
    Term::Part(Box::new(Part { whole, keys, foreign: AtomicBool::new(false) }))
}
