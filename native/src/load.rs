//! From sources and data to an engine that is ready to answer, or to the list of what is wrong.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};

use crate::builtins::{callables, register};
use crate::convert::from_json;
use crate::covered::Covered;
use crate::model::{Kind, Path};
use crate::plan::{self, Plan};
use crate::problem::Problem;
use crate::refuse::{check, Checked};
use crate::scan::scan;

/// Expressions between two looks at the clock.
const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::new(32).unwrap();

pub struct Loaded {
    /// regorus' interpreter, for every rule; none where a plan answers and there is no test, and nobody would ask it.
    pub engine: Option<Engine>,
    /// For the entrypoint; none where it needs the interpreter.
    pub plan: Option<Plan>,
    /// Package and name of every test rule, in order.
    pub tests: Vec<(Path, String)>,
    /// Where evaluated rows are gathered, when that was asked for.
    pub covered: Option<Covered>,
}

/// How an engine is to evaluate.
#[derive(Clone, Copy)]
pub struct By {
    pub interpreter: bool,
    /// Keep which rows are evaluated, which only the interpreter does.
    pub coverage: bool,
}

pub fn timer(limit: Duration) -> ExecutionTimerConfig {
    ExecutionTimerConfig { limit, check_interval: CHECK_INTERVAL }
}

pub fn load(
    modules: &[(String, String)],
    data: &[u8],
    entrypoint: &str,
    nullable: &[String],
    by: By,
) -> Result<Loaded, Vec<Problem>> {
    let whole = |file: &str, code, message: String| vec![Problem::file(file, 0, 0, code, message)];
    let document = from_json(data).map_err(|message| whole("data", "data", message))?;
    if !matches!(document, Value::Object(_)) {
        return Err(whole("data", "data", "the data document must be an object".to_string()));
    }
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(true);
    engine.set_gather_prints(true);
    let mut problems = Vec::new();
    let mut names = BTreeMap::new();
    for (name, source) in modules {
        if names.insert(name, ()).is_some() {
            problems.push(Problem::file(name, 0, 0, "module_twice", "two modules have this name: rename one"));
        } else if let Err(problem) = scan(name, source) {
            problems.push(problem);
        } else if let Err(error) = engine.add_policy(name.clone(), source.clone()) {
            problems.push(Problem::from_engine(name, &error));
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let leaves = nullable.iter().map(|leaf| leaf_path(leaf)).collect::<Result<Vec<_>, _>>().map_err(|p| vec![p])?;
    let parsed = engine.get_modules().clone();
    let Checked { model, mut problems, calls } = check(parsed, document.clone(), leaves);
    let path: Path = entrypoint.split('.').skip(1).map(str::to_string).collect();
    let complete = model.rules.get(&path).is_some_and(|entry| entry.kind == Kind::Complete);
    if problems.is_empty() && !(complete && entrypoint.starts_with("data.")) {
        let message = format!("{entrypoint} is not a rule with one value: define it, or correct the entrypoint");
        problems.push(Problem::file(modules.first().map_or("", |m| m.0.as_str()), 0, 0, "entrypoint", message));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let engine_failed = |error: anyhow::Error| vec![Problem::from_engine("bundle", &error)];
    let callables = callables(&calls).map_err(engine_failed)?;
    let compile = |engine: &mut Engine| -> anyhow::Result<()> {
        register(engine, &callables)?;
        engine.add_data(document)?;
        // Compiles every rule; answers nothing, as there is no input yet.
        engine.set_input(Value::Undefined);
        engine.set_execution_timer_config(timer(Duration::from_secs(1)));
        engine.compile_with_entrypoint(&entrypoint.into()).map(drop)
    };
    compile(&mut engine).map_err(engine_failed)?;
    let interpreted = by.interpreter || by.coverage;
    let plan = if interpreted { None } else { plan::compile(&model, &callables, &path) };
    let tests = tests(&model);
    engine.set_enable_coverage(by.coverage);
    let covered = by.coverage.then(|| Covered::of(&model.modules));
    let engine = (plan.is_none() || !tests.is_empty()).then_some(engine);
    Ok(Loaded { engine, plan, tests, covered })
}

fn tests(model: &crate::model::Model) -> Vec<(Path, String)> {
    let mut found = Vec::new();
    for (path, entry) in &model.rules {
        if let Some((name, package)) = path.split_last() {
            if name.starts_with("test_") && entry.kind == Kind::Complete && !entry.defs.is_empty() {
                found.push((package.to_vec(), name.clone()));
            }
        }
    }
    found
}

fn leaf_path(leaf: &str) -> Result<Path, Problem> {
    let parts: Path = leaf.split('.').map(str::to_string).collect();
    match parts.split_first() {
        Some((root, rest)) if root == "input" && !rest.is_empty() && rest.iter().all(|p| !p.is_empty()) => {
            Ok(rest.to_vec())
        }
        _ => Err(Problem::file(
            "nullable",
            0,
            0,
            "nullable",
            format!("`{leaf}`: a leaf is written `input.a.b`, with `*` for any key"),
        )),
    }
}
