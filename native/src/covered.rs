//! Which rows of the policies were evaluated. Off, it costs one look at a flag in each expression.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use regorus::coverage::Report;
use regorus::unstable::{Expr, ExprRef, Literal, Module, Query, Ref, Rule, RuleHead};

type Rows = BTreeSet<u32>;
/// File, rows evaluated, rows not evaluated.
pub type File = (String, Vec<u32>, Vec<u32>);

/// Rows evaluated since the start or the last `clear`, over all evaluations and threads.
pub struct Covered {
    /// Per file, in the order of the modules: the rows that can be evaluated.
    files: Vec<(String, Rows)>,
    seen: Mutex<BTreeMap<String, Rows>>,
}

impl Covered {
    pub fn of(modules: &[Ref<Module>]) -> Self {
        let files =
            modules.iter().map(|module| (module.package.span.source.get_path().clone(), rows(module))).collect();
        Self { files, seen: Mutex::default() }
    }

    pub fn add(&self, report: Report) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for file in report.files {
            seen.entry(file.path).or_default().extend(file.covered);
        }
    }

    pub fn clear(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub fn files(&self) -> Vec<File> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let none = Rows::new();
        self.files
            .iter()
            .map(|(name, rows)| {
                let covered = seen.get(name).unwrap_or(&none);
                let missed = rows.difference(covered).copied().collect();
                (name.clone(), covered.iter().copied().collect(), missed)
            })
            .collect()
    }
}

/// The rows regorus reports on: it leaves a file out of which nothing was evaluated.
fn rows(module: &Module) -> Rows {
    let mut rows = Rows::new();
    for rule in &module.policy {
        match rule.as_ref() {
            Rule::Spec { head, bodies, .. } => {
                match head {
                    RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => {
                        assign.iter().for_each(|assign| in_term(&assign.value, &mut rows));
                    }
                    RuleHead::Set { key, .. } => key.iter().for_each(|key| in_term(key, &mut rows)),
                }
                bodies.iter().for_each(|body| in_query(&body.query, &mut rows));
            }
            Rule::Default { value, .. } => in_term(value, &mut rows),
        }
    }
    rows
}

fn in_query(query: &Query, rows: &mut Rows) {
    for stmt in &query.stmts {
        match &stmt.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { value, collection, .. } => {
                in_term(value, rows);
                in_term(collection, rows);
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => in_term(expr, rows),
            Literal::Every { domain, query, .. } => {
                in_term(domain, rows);
                in_query(query, rows);
            }
        }
    }
}

fn in_term(expr: &ExprRef, rows: &mut Rows) {
    match expr.as_ref() {
        Expr::ArrayCompr { query, .. } | Expr::SetCompr { query, .. } | Expr::ObjectCompr { query, .. } => {
            return in_query(query, rows);
        }
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| in_term(item, rows)),
        Expr::Object { fields, .. } => fields.iter().for_each(|(_, key, value)| {
            in_term(key, rows);
            in_term(value, rows);
        }),
        Expr::Call { params, .. } => params.iter().for_each(|param| in_term(param, rows)),
        Expr::UnaryExpr { expr, .. } => in_term(expr, rows),
        Expr::RefDot { refr, .. } => in_term(refr, rows),
        Expr::RefBrack { refr, index, .. } => {
            in_term(refr, rows);
            in_term(index, rows);
        }
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => {
            in_term(lhs, rows);
            in_term(rhs, rows);
        }
        Expr::Membership { key, value, collection, .. } => {
            key.iter().for_each(|key| in_term(key, rows));
            in_term(value, rows);
            in_term(collection, rows);
        }
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::Var { .. } => {}
    }
    rows.insert(expr.span().line);
}
