//! What a bundle defines: packages, imports, rules and data, and where a reference leads.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{Expr, ExprRef, Module, Ref, Rule, RuleHead, Span, BUILTINS};
use regorus::Value;

use crate::problem::{whole, Problem};

pub type Path = Vec<String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Complete,
    Set,
    Object,
    Function(usize),
}

/// All definitions of one rule.
pub struct Entry {
    pub kind: Kind,
    pub defs: Vec<(usize, Ref<Rule>)>,
    pub default: Option<ExprRef>,
    pub span: Span,
}

pub struct Model {
    pub modules: Vec<Ref<Module>>,
    pub packages: Vec<Path>,
    /// Per module: alias to the path under `data`.
    pub imports: Vec<BTreeMap<String, Path>>,
    pub rules: BTreeMap<Path, Entry>,
    pub data: Value,
    pub nullable: Vec<Path>,
}

/// One element after the first of a reference.
pub enum Step<'a> {
    Field(&'a str),
    Index(&'a ExprRef),
}

impl Step<'_> {
    /// The key when it is written down as text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Field(name) => Some(name),
            Self::Index(expr) => match expr.as_ref() {
                Expr::String { value: Value::String(s), .. } | Expr::RawString { value: Value::String(s), .. } => {
                    Some(s)
                }
                _ => None,
            },
        }
    }
}

/// Where a reference that starts with a name leads.
pub enum Place {
    Local,
    Input,
    Rule {
        path: Path,
        used: usize,
    },
    Base {
        path: Path,
        used: usize,
    },
    /// A package, or a part of `data` that holds one: half rules, half data.
    Package,
    Missing(String),
}

/// A reference taken apart: its root and its steps, outermost last.
pub fn flatten(expr: &ExprRef) -> (&Expr, Vec<Step<'_>>) {
    let mut steps = Vec::new();
    let mut current: &Expr = expr.as_ref();
    loop {
        match current {
            Expr::RefDot { refr, field, .. } => {
                steps.push(Step::Field(field.0.text()));
                current = refr.as_ref();
            }
            Expr::RefBrack { refr, index, .. } => {
                steps.push(Step::Index(index));
                current = refr.as_ref();
            }
            _ => {
                steps.reverse();
                return (current, steps);
            }
        }
    }
}

/// `a.b["c"]` as a path; `None` when a part is not text.
pub fn static_path(expr: &ExprRef) -> Option<Path> {
    let (root, steps) = flatten(expr);
    let Expr::Var { span, .. } = root else { return None };
    let mut path = vec![span.text().to_string()];
    for step in &steps {
        path.push(step.text()?.to_string());
    }
    Some(path)
}

/// Names that calls to built-ins start with: `count`, `time`, `regex`, …
pub fn is_builtin_root(name: &str) -> bool {
    BUILTINS.keys().any(|known| known.split('.').next() == Some(name)) || crate::calls::is_known_root(name)
}

impl Model {
    pub fn build(modules: Vec<Ref<Module>>, data: Value, nullable: Vec<Path>, problems: &mut Vec<Problem>) -> Self {
        let mut model = Self { modules, packages: vec![], imports: vec![], rules: BTreeMap::new(), data, nullable };
        for module in model.modules.clone() {
            let mut package = static_path(&module.package.refr).unwrap_or_default();
            let plain = |p: &String| p.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if package.is_empty() || !package.iter().all(plain) {
                let message = "package names are plain words joined by dots";
                problems.push(Problem::at(&module.package.span, "package_name", message));
            }
            if package.first().is_some_and(|first| first == "data") {
                package.remove(0);
            }
            if module.target.is_some() {
                problems.push(whole(
                    &module.package.span.source,
                    "target",
                    "`__target__` is unknown to OPA: remove it",
                ));
            }
            model.packages.push(package);
        }
        for index in 0..model.modules.len() {
            let aliases = model.read_imports(index, problems);
            model.imports.push(aliases);
        }
        for index in 0..model.modules.len() {
            model.read_rules(index, problems);
        }
        model.check_imports(problems);
        model.check_names(problems);
        model.check_data(problems);
        model
    }

    fn read_imports(&self, index: usize, problems: &mut Vec<Problem>) -> BTreeMap<String, Path> {
        let mut aliases = BTreeMap::new();
        for import in &self.modules[index].imports {
            let path = static_path(&import.refr).unwrap_or_default();
            let mut refuse = |code, message: &str| problems.push(Problem::at(&import.span, code, message));
            match path.first().map(String::as_str) {
                Some("future") => {}
                Some("rego") if path.len() == 2 && path[1] == "v1" => {}
                Some("data") if path.len() > 1 => {
                    let alias =
                        import.r#as.as_ref().map_or_else(|| path[path.len() - 1].clone(), |s| s.text().to_string());
                    if is_builtin_root(&alias) {
                        refuse(
                            "shadows_builtin",
                            "the alias hides built-in functions of the same name: import it `as` another",
                        );
                    }
                    if aliases.insert(alias, path[1..].to_vec()).is_some() {
                        refuse("import_twice", "two imports have one name: import one of them `as` another");
                    }
                }
                Some("input") => {
                    refuse("import_input", "imports of `input` hide which leaf is read: write the path in full")
                }
                _ => refuse("import_unknown", "only `data.…`, `rego.v1` and `future.keywords` can be imported"),
            }
        }
        aliases
    }

    /// The embedded engine's interpreter takes an alias of one file for that of another of the same package.
    fn check_imports(&self, problems: &mut Vec<Problem>) {
        let mut known: BTreeMap<(&Path, &str), &Path> = BTreeMap::new();
        for (module, (package, aliases)) in self.modules.iter().zip(self.packages.iter().zip(&self.imports)) {
            for (alias, target) in aliases {
                if *known.entry((package, alias)).or_insert(target) != target {
                    let message = format!(
                        "`{alias}` is another import in another file of this package: import one of them `as` another"
                    );
                    problems.push(Problem::at(&module.package.span, "import_twice", message));
                }
            }
        }
    }

    fn read_rules(&mut self, index: usize, problems: &mut Vec<Problem>) {
        let module = self.modules[index].clone();
        for rule in &module.policy {
            let (refr, kind, default) = match rule.as_ref() {
                Rule::Default { refr, args, value, .. } => {
                    if !args.is_empty() {
                        let message = "default functions are resolved differently: end the function with an `else`";
                        problems.push(Problem::at(refr.span(), "default_function", message));
                        continue;
                    }
                    (refr, Kind::Complete, Some(value.clone()))
                }
                Rule::Spec { head: RuleHead::Compr { refr, .. }, .. } => match refr.as_ref() {
                    Expr::RefBrack { .. } => (refr, Kind::Object, None),
                    _ => (refr, Kind::Complete, None),
                },
                Rule::Spec { head: RuleHead::Set { refr, .. }, .. } => (refr, Kind::Set, None),
                Rule::Spec { head: RuleHead::Func { refr, args, .. }, .. } => (refr, Kind::Function(args.len()), None),
            };
            let (root, steps) = flatten(refr);
            let Expr::Var { span, .. } = root else { continue };
            if steps.len() > usize::from(kind == Kind::Object)
                || (kind == Kind::Object && matches!(steps[0], Step::Field(_)))
            {
                let message =
                    "a rule is named by one word (or `word[key] := value`): make packages instead of dotted rule names";
                problems.push(Problem::at(refr.span(), "rule_name", message));
                continue;
            }
            let mut path = self.packages[index].clone();
            path.push(span.text().to_string());
            self.add(path, kind, default, index, rule, span, problems);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn add(
        &mut self,
        path: Path,
        kind: Kind,
        default: Option<ExprRef>,
        module: usize,
        rule: &Ref<Rule>,
        span: &Span,
        problems: &mut Vec<Problem>,
    ) {
        let name = path.last().cloned().unwrap_or_default();
        let entry =
            self.rules.entry(path).or_insert_with(|| Entry { kind, defs: vec![], default: None, span: span.clone() });
        if entry.kind != kind {
            let message =
                format!("`{name}` is also defined as another kind of rule, at line {}: rename one", entry.span.line);
            problems.push(Problem::at(span, "rule_kind", message));
        }
        if let Some(value) = default {
            if entry.default.replace(value).is_some() {
                problems.push(Problem::at(span, "two_defaults", format!("`{name}` has two defaults: keep one")));
            }
        } else {
            entry.defs.push((module, rule.clone()));
        }
    }

    fn check_names(&self, problems: &mut Vec<Problem>) {
        let packages: BTreeSet<&Path> = self.packages.iter().collect();
        for (path, entry) in &self.rules {
            let name = path.last().map_or("", String::as_str);
            if is_builtin_root(name) {
                problems.push(Problem::at(
                    &entry.span,
                    "shadows_builtin",
                    format!("`{name}` hides a built-in function: rename the rule"),
                ));
            }
            if matches!(name, "input" | "data" | "_") {
                problems.push(Problem::at(&entry.span, "rule_name", format!("`{name}` cannot name a rule: rename it")));
            }
            if packages.iter().any(|package| package.starts_with(path)) {
                let message = format!("data.{} is a rule and (part of) a package: rename one", path.join("."));
                problems.push(Problem::at(&entry.span, "rule_is_package", message));
            }
            // In any file of the package: OPA takes the import there, where rules are found first here.
            let package = &path[..path.len().saturating_sub(1)];
            let mut files = self.packages.iter().zip(&self.imports).filter(|(own, _)| *own == package);
            if files.any(|(_, imports)| imports.contains_key(name)) {
                let message =
                    format!("`{name}` is also the name of an import: rename the rule or import it `as` another");
                problems.push(Problem::at(&entry.span, "shadows_import", message));
            }
        }
    }

    /// A value in data at the path of a rule wins over the rule in one engine and is an error in the other.
    fn check_data(&self, problems: &mut Vec<Problem>) {
        for (path, entry) in &self.rules {
            let mut value = &self.data;
            for (depth, part) in path.iter().enumerate() {
                value = &value[part.as_str()];
                let last = depth + 1 == path.len();
                if matches!(value, Value::Undefined) {
                    break;
                }
                if last || !matches!(value, Value::Object(_)) {
                    let message = format!(
                        "the data document has a value at data.{}: move the data or rename the rule",
                        path[..=depth].join(".")
                    );
                    problems.push(Problem::at(&entry.span, "data_conflict", message));
                    break;
                }
            }
        }
    }

    /// Where `name` followed by `steps`, written in module `module`, leads.
    pub fn place(&self, module: usize, name: &str, steps: &[Step<'_>]) -> Place {
        let fixed = steps.iter().map_while(Step::text).map(str::to_string);
        // `skip`: how many elements of the path are not steps of the reference.
        let (path, skip): (Path, usize) = match name {
            "input" => return Place::Input,
            "data" => (fixed.collect(), 0),
            _ => {
                let mut own = self.packages[module].clone();
                own.push(name.to_string());
                if self.rules.contains_key(&own) {
                    return Place::Rule { path: own, used: 0 };
                }
                match self.imports[module].get(name) {
                    Some(target) => (target.iter().cloned().chain(fixed).collect(), target.len()),
                    None => {
                        return Place::Missing(format!(
                            "`{name}` is not defined here: declare it with `:=`, `some … in` or as a parameter"
                        ))
                    }
                }
            }
        };
        for end in 1..=path.len() {
            if self.rules.contains_key(&path[..end]) {
                let Some(used) = end.checked_sub(skip) else {
                    return Place::Missing(format!(
                        "`{name}` imports a part of the rule data.{}: import the rule, and name its part where it is used",
                        path[..end].join(".")
                    ));
                };
                return Place::Rule { path: path[..end].to_vec(), used };
            }
        }
        if self.packages.iter().any(|package| package.starts_with(&path)) {
            return Place::Package;
        }
        if let Some(package) = self.packages.iter().filter(|p| path.starts_with(p)).max_by_key(|p| p.len()) {
            let member = &path[..=package.len()];
            if matches!(self.base(member), Value::Undefined) {
                return Place::Missing(format!(
                    "data.{} is neither a rule nor in the data document: correct the name",
                    member.join(".")
                ));
            }
        }
        let used = path.len().saturating_sub(skip);
        Place::Base { path, used }
    }

    /// The data document at a path.
    pub fn base(&self, path: &[String]) -> &Value {
        let mut value = &self.data;
        for part in path {
            value = &value[part.as_str()];
        }
        value
    }
}
