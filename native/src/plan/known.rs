//! What is known when a bundle is loaded is worked out then: literals, and parts of data.

use std::collections::BTreeMap;

use regorus::Value;

use super::{Part, Term};

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
    known.map_or_else(|| Term::Object(pairs.into()), |known| Term::Known(Value::from(known)))
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
    if keys.is_empty() {
        whole
    } else {
        Term::Part(Box::new(Part { whole, keys }))
    }
}
