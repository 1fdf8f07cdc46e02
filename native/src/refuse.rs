//! The loader's check of a whole bundle: every rule is walked, and every construct on which the
//! embedded engine and OPA answer differently is reported with its place.
//!
//! The order of work: names first (`model`), then what each rule may yield (null, sets) until
//! nothing changes, then one last walk that keeps its problems, then the graph of rules.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{Expr, ExprRef, Literal, Module, Query, Ref, Rule, RuleBody, RuleHead};
use regorus::Value;

use crate::body::{certain, Checker};
use crate::graph::Graph;
use crate::model::{flatten, Kind, Model, Path};
use crate::nulls::Abs;
use crate::problem::Problem;

pub type Values = BTreeMap<Path, Abs>;

/// What the loader found out about a bundle. Without problems it may load.
pub struct Checked {
    pub model: Model,
    pub problems: Vec<Problem>,
    /// The built-ins that its rules call.
    pub calls: BTreeSet<&'static str>,
}

/// Check parsed modules and the data they run with.
pub fn check(modules: Vec<Ref<Module>>, data: Value, nullable: Vec<Path>) -> Checked {
    let mut problems = Vec::new();
    let model = Model::build(modules, data, nullable, &mut problems);
    // What is found below would mislead while names are unclear.
    if !problems.is_empty() {
        return Checked { model, problems, calls: BTreeSet::new() };
    }
    let mut values = Values::new();
    let mut graph = Graph::default();
    // Each walk can only add facts about a rule, and a rule has three of them.
    for _ in 0..=model.rules.len().saturating_mul(3) {
        let before = values.clone();
        problems.clear();
        graph = Graph::default();
        for (path, entry) in &model.rules {
            let value = check_rule(&model, &before, path, entry.default.as_ref(), &mut problems, &mut graph);
            let known = values.entry(path.clone()).or_default();
            *known = known.join(&value);
        }
        if values == before {
            break;
        }
    }
    graph.check(&model, &mut problems);
    problems.sort();
    problems.dedup();
    Checked { model, problems, calls: graph.calls }
}

fn check_rule(
    model: &Model,
    values: &Values,
    path: &Path,
    default: Option<&ExprRef>,
    problems: &mut Vec<Problem>,
    graph: &mut Graph,
) -> Abs {
    let entry = &model.rules[path];
    let mut yields = Abs::plain();
    if let Some(value) = default {
        if entry.kind != Kind::Complete {
            problems.push(Problem::at(
                value.span(),
                "default_kind",
                "only a rule with one value has a default: remove it",
            ));
        }
        if !certain(value, &|_| false) {
            problems.push(Problem::at(value.span(), "default_value", "a default is made of literals only"));
        }
        let mut checker = Checker::new(model, values, 0, path);
        yields = yields.join(&checker.term(value));
        checker.finish(problems, graph);
    }
    for (module, rule) in &entry.defs {
        if let Rule::Spec { head, bodies, .. } = rule.as_ref() {
            let value = check_definition(model, values, *module, path, head, bodies, problems, graph);
            yields = yields.join(&value);
        }
    }
    yields.path = None;
    yields
}

#[allow(clippy::too_many_arguments)]
fn check_definition(
    model: &Model,
    values: &Values,
    module: usize,
    path: &Path,
    head: &RuleHead,
    bodies: &[RuleBody],
    problems: &mut Vec<Problem>,
    graph: &mut Graph,
) -> Abs {
    let (key, assigned, args): (Option<&ExprRef>, Option<&ExprRef>, &[ExprRef]) = match head {
        RuleHead::Compr { refr, assign, .. } => {
            let key = match refr.as_ref() {
                Expr::RefBrack { index, .. } => Some(index),
                _ => None,
            };
            if key.is_some() && assign.is_none() {
                problems.push(Problem::at(
                    refr.span(),
                    "object_value",
                    "write `name[key] := value`, or `name contains key`",
                ));
            }
            (key, assign.as_ref().map(|a| &a.value), &[])
        }
        RuleHead::Set { refr, key, .. } => {
            if key.is_none() {
                problems.push(Problem::at(refr.span(), "set_key", "write `name contains key`"));
            }
            (key.as_ref(), None, &[])
        }
        RuleHead::Func { refr, args, assign, .. } => {
            if args.is_empty() {
                problems.push(Problem::at(
                    refr.span(),
                    "no_parameters",
                    "a function takes parameters: write a rule without brackets",
                ));
            }
            (None, assign.as_ref().map(|a| &a.value), args)
        }
    };
    let partial = key.is_some();
    if let Some(second) = bodies.get(1) {
        if partial || !second.is_else {
            problems.push(Problem::at(&second.span, "several_bodies", "write one rule for each body"));
        }
    }
    let mut yields = Abs::plain();
    let none: [RuleBody; 0] = [];
    let walked = if bodies.is_empty() { &none[..] } else { bodies };
    let count = walked.len().max(1);
    for index in 0..count {
        let mut checker = Checker::new(model, values, module, path);
        checker.parameters(args);
        let body = walked.get(index);
        if let Some(body) = body {
            checker.query(&body.query);
        }
        let own = body.and_then(|b| b.assign.as_ref()).map(|a| &a.value);
        let value = if body.is_some_and(|b| b.is_else) { own } else { assigned };
        let repeats = body.is_some_and(|b| iterates(&b.query));
        for term in key.into_iter().chain(value) {
            let found = checker.term(term);
            // A key in the head of a set is an element of it.
            yields = yields.join(&if partial { found.held() } else { found });
            if repeats && !certain(term, &|name| checker.is_local(name)) {
                let message = "an undefined value here loses the results of the other iterations: bind it in the body first (`v := …`)";
                checker.refuse(term.span(), "head_undefined", message);
            }
        }
        checker.finish(problems, graph);
    }
    yields.sets = yields.sets || matches!(head, RuleHead::Set { .. });
    yields
}

/// Can the body succeed more than once?
fn iterates(query: &Query) -> bool {
    query.stmts.iter().any(|stmt| match &stmt.literal {
        Literal::SomeIn { .. } => true,
        Literal::Expr { expr, .. } => has_wildcard(expr),
        _ => false,
    })
}

fn has_wildcard(expr: &ExprRef) -> bool {
    let (root, steps) = flatten(expr);
    let in_steps = steps.iter().any(|step| match step {
        crate::model::Step::Index(index) => is_wildcard(index) || has_wildcard(index),
        crate::model::Step::Field(_) => false,
    });
    in_steps
        || match root {
            Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().any(has_wildcard),
            Expr::Object { fields, .. } => fields.iter().any(|(_, k, v)| has_wildcard(k) || has_wildcard(v)),
            Expr::Call { params, .. } => params.iter().any(has_wildcard),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => has_wildcard(lhs) || has_wildcard(rhs),
            Expr::Membership { key, value, collection, .. } => {
                key.as_ref().is_some_and(has_wildcard) || has_wildcard(value) || has_wildcard(collection)
            }
            _ => false,
        }
}

pub fn is_wildcard(expr: &ExprRef) -> bool {
    matches!(expr.as_ref(), Expr::Var { span, .. } if span.text() == "_")
}
