//! What stands in a policy's source, for tools that show, check and explain policies. It judges
//! nothing, so it also reads modules that the loader refuses; only what cannot be parsed is a problem.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{Expr, ExprRef, Literal, Module, Query, Rule, RuleBody, RuleHead, Span};
use regorus::{Engine, Value};
use serde_json::{json, Value as Json};

use crate::model::{flatten, static_path, Path};
use crate::nulls::ANY;
use crate::problem::Problem;
use crate::scan::scan;

/// The outline of every module as one JSON object; the binding's documentation names its parts.
pub fn outline(modules: &[(String, String)]) -> Json {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for (name, source) in modules {
        match parse(name, source) {
            Ok(mut engine) => found.extend(engine.get_modules().iter().map(|module| Walk::module(name, module))),
            Err(problem) => problems.push(problem),
        }
    }
    let problems: Vec<Json> = problems
        .iter()
        .map(|p| json!({"file": p.file, "row": p.line, "col": p.column, "code": p.code, "message": p.message}))
        .collect();
    json!({"modules": found, "problems": problems})
}

fn parse(name: &str, source: &str) -> Result<Engine, Problem> {
    scan(name, source)?;
    let mut engine = Engine::new();
    match engine.add_policy(name.to_string(), source.to_string()) {
        Ok(_) => Ok(engine),
        Err(error) => Err(Problem::from_engine(name, &error)),
    }
}

/// Row and path or name, each once, in the order of the source.
type Mentions = BTreeSet<(u32, String)>;

#[derive(Default)]
struct Walk {
    imports: BTreeMap<String, Path>,
    inputs: Mentions,
    data: Mentions,
    calls: Mentions,
    pairs: BTreeSet<(u32, String, String)>,
}

impl Walk {
    fn module(file: &str, module: &Module) -> Json {
        let mut walk = Self::default();
        for import in &module.imports {
            let Some(path) = static_path(&import.refr) else { continue };
            if let (Some("data" | "input"), Some(last)) = (path.first().map(String::as_str), path.last()) {
                let alias = import.r#as.as_ref().map_or_else(|| last.clone(), |name| name.text().to_string());
                walk.imports.insert(alias, path);
            }
        }
        let rules: Vec<Json> = module.policy.iter().map(|rule| walk.rule(rule)).collect();
        let mut package = static_path(&module.package.refr).unwrap_or_default();
        if package.first().is_some_and(|first| first == "data") {
            package.remove(0);
        }
        let mentions = |found: &Mentions, key: &str| -> Vec<Json> {
            found.iter().map(|(row, name)| json!({"row": row, key: name})).collect()
        };
        let pairs: Vec<Json> =
            walk.pairs.iter().map(|(row, key, value)| json!({"row": row, "key": key, "value": value})).collect();
        json!({
            "file": file, "package": package.join("."), "rules": rules,
            "inputs": mentions(&walk.inputs, "path"), "data": mentions(&walk.data, "path"),
            "calls": mentions(&walk.calls, "name"), "pairs": pairs,
        })
    }

    fn rule(&mut self, rule: &Rule) -> Json {
        let none: &[RuleBody] = &[];
        let (refr, kind, bodies) = match rule {
            Rule::Default { refr, value, .. } => {
                self.term(value);
                (refr, "default", none)
            }
            Rule::Spec { head, bodies, .. } => {
                let (refr, kind) = self.head(head);
                (refr, kind, bodies.as_slice())
            }
        };
        let mut name = Vec::new();
        let (root, steps) = flatten(refr);
        name.push(root.span().text().to_string());
        name.extend(steps.iter().map_while(|step| step.text()).map(str::to_string));
        if kind == "object" {
            name.truncate(steps.len().max(1));
        }
        let name = name.join(".");
        let test = kind == "complete" && name.starts_with("test_");
        let bodies: Vec<Json> = bodies.iter().map(|body| self.body(body)).collect();
        let span = rule.span();
        json!({"name": name, "kind": kind, "test": test, "row": span.line, "end_row": end_row(span), "bodies": bodies})
    }

    fn head<'r>(&mut self, head: &'r RuleHead) -> (&'r ExprRef, &'static str) {
        let (refr, kind, assign) = match head {
            RuleHead::Compr { refr, assign, .. } => match refr.as_ref() {
                Expr::RefBrack { index, .. } => {
                    self.term(index);
                    (refr, "object", assign.as_ref())
                }
                _ => (refr, "complete", assign.as_ref()),
            },
            RuleHead::Set { refr, key, .. } => {
                key.iter().for_each(|key| self.term(key));
                (refr, "set", None)
            }
            RuleHead::Func { refr, args, assign, .. } => {
                args.iter().for_each(|arg| self.term(arg));
                (refr, "function", assign.as_ref())
            }
        };
        if let Some(assign) = assign {
            self.term(&assign.value);
        }
        (refr, kind)
    }

    fn body(&mut self, body: &RuleBody) -> Json {
        if let Some(assign) = &body.assign {
            self.term(&assign.value);
        }
        self.query(&body.query);
        let statements: Vec<Json> = body
            .query
            .stmts
            .iter()
            .map(|stmt| {
                let span = quoted(&stmt.span);
                json!({"row": span.line, "end_row": end_row(&span), "col": column(&span), "text": span.text().trim_end()})
            })
            .collect();
        json!({"row": body.span.line, "end_row": end_row(&body.span), "statements": statements})
    }

    fn query(&mut self, query: &Query) {
        for stmt in &query.stmts {
            match &stmt.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { key, value, collection, .. } => {
                    key.iter().for_each(|key| self.term(key));
                    self.term(value);
                    self.term(collection);
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.term(expr),
                Literal::Every { domain, query, .. } => {
                    self.term(domain);
                    self.query(query);
                }
            }
            for modifier in &stmt.with_mods {
                self.term(&modifier.refr);
                self.term(&modifier.r#as);
            }
        }
    }

    fn term(&mut self, expr: &ExprRef) {
        match expr.as_ref() {
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.reference(expr),
            Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| self.term(item)),
            Expr::Object { fields, .. } => fields.iter().for_each(|(_, key, value)| {
                if let (Some(name), Some(text)) = (literal(key), literal(value)) {
                    self.pairs.insert((key.span().line, name.to_string(), text.to_string()));
                }
                self.term(key);
                self.term(value);
            }),
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.term(term);
                self.query(query);
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.term(key);
                self.term(value);
                self.query(query);
            }
            Expr::Call { fcn, params, .. } => {
                if let Some(path) = static_path(fcn) {
                    self.calls.insert((fcn.span().line, self.resolved(path).join(".")));
                }
                params.iter().for_each(|param| self.term(param));
            }
            Expr::UnaryExpr { expr, .. } => self.term(expr),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => {
                self.term(lhs);
                self.term(rhs);
            }
            Expr::Membership { key, value, collection, .. } => {
                key.iter().for_each(|key| self.term(key));
                self.term(value);
                self.term(collection);
            }
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => {}
        }
    }

    /// The whole reference once, its computed keys as `*`, and what stands in those keys.
    fn reference(&mut self, expr: &ExprRef) {
        let (root, steps) = flatten(expr);
        for step in &steps {
            if let crate::model::Step::Index(index) = step {
                self.term(index);
            }
        }
        let Expr::Var { span, .. } = root else { return };
        let mut path = self.resolved(vec![span.text().to_string()]);
        path.extend(steps.iter().map(|step| step.text().unwrap_or(ANY).to_string()));
        let mention = (span.line, path.join("."));
        match path.first().map(String::as_str) {
            Some("input") => self.inputs.insert(mention),
            Some("data") => self.data.insert(mention),
            _ => false,
        };
    }

    /// With the alias of an import replaced by what it stands for.
    fn resolved(&self, path: Path) -> Path {
        match path.split_first().and_then(|(first, rest)| self.imports.get(first).map(|target| (target, rest))) {
            Some((target, rest)) => target.iter().chain(rest).cloned().collect(),
            None => path,
        }
    }
}

fn literal(expr: &ExprRef) -> Option<&str> {
    match expr.as_ref() {
        Expr::String { value: Value::String(text), .. } | Expr::RawString { value: Value::String(text), .. } => {
            Some(text)
        }
        _ => None,
    }
}

/// The span of a text token leaves out its quotes, and so does that of a statement that begins or ends with one.
fn quoted(span: &Span) -> Span {
    let source = span.source.contents().as_bytes();
    let quote = |at: u32| usize::try_from(at).is_ok_and(|at| matches!(source.get(at), Some(b'"' | b'`')));
    let mut whole = span.clone();
    if span.start > 0 && quote(span.start - 1) {
        whole.start -= 1;
    }
    if quote(span.end) {
        whole.end += 1;
    }
    whole
}

fn end_row(span: &Span) -> u32 {
    let breaks = span.text().trim_end().matches('\n').count();
    span.line.saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX))
}

/// Counted in characters: the lexer counts a tab as four.
fn column(span: &Span) -> usize {
    let start = usize::try_from(span.start).unwrap_or_default();
    let before = span.source.contents().get(..start).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    line.chars().count().saturating_add(1)
}
