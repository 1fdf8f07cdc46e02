//! The built-in functions a policy may call: those on which both engines were found to agree.

use regorus::unstable::{Expr, ExprRef};
use regorus::Value;

use crate::patterns;

/// What a built-in returns, as far as the loader cares.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// A string, number or boolean.
    Scalar,
    /// Something made of its arguments.
    Parts,
    /// A set.
    Set,
    /// A JSON document of unknown content: it may be null and may hold nulls.
    Document,
}

pub struct Builtin {
    pub name: &'static str,
    pub arity: usize,
    pub gives: Gives,
    /// Null is an ordinary argument here (type tests and the like).
    pub null_is_fine: bool,
}

const fn of(name: &'static str, arity: usize, gives: Gives) -> Builtin {
    Builtin { name, arity, gives, null_is_fine: false }
}

const fn test(name: &'static str) -> Builtin {
    Builtin { name, arity: 1, gives: Gives::Scalar, null_is_fine: true }
}

use Gives::{Document, Parts, Scalar, Set};

pub const ALLOWED: &[Builtin] = &[
    of("abs", 1, Scalar),
    of("array.concat", 2, Parts),
    of("array.flatten", 1, Parts),
    of("array.reverse", 1, Parts),
    of("array.slice", 3, Parts),
    of("base64.decode", 1, Scalar),
    of("base64.encode", 1, Scalar),
    of("base64.is_valid", 1, Scalar),
    of("base64url.decode", 1, Scalar),
    of("base64url.encode", 1, Scalar),
    of("base64url.encode_no_pad", 1, Scalar),
    of("concat", 2, Scalar),
    of("contains", 2, Scalar),
    of("count", 1, Scalar),
    of("crypto.hmac.equal", 2, Scalar),
    of("crypto.hmac.sha256", 2, Scalar),
    of("crypto.hmac.sha512", 2, Scalar),
    of("crypto.sha256", 1, Scalar),
    of("endswith", 2, Scalar),
    of("format_int", 2, Scalar),
    of("hex.decode", 1, Scalar),
    of("hex.encode", 1, Scalar),
    of("indexof", 2, Scalar),
    of("intersection", 1, Set),
    of("io.jwt.decode", 1, Document),
    test("is_array"),
    test("is_boolean"),
    test("is_null"),
    test("is_number"),
    test("is_object"),
    test("is_set"),
    test("is_string"),
    of("json.unmarshal", 1, Document),
    of("lower", 1, Scalar),
    of("max", 1, Parts),
    of("min", 1, Parts),
    of("net.cidr_contains", 2, Scalar),
    of("net.cidr_contains_matches", 2, Set),
    of("net.cidr_intersects", 2, Scalar),
    of("net.cidr_is_valid", 1, Scalar),
    of("net.cidr_merge", 1, Set),
    of("numbers.range", 2, Parts),
    of("object.filter", 2, Parts),
    of("object.get", 3, Parts),
    of("object.keys", 1, Set),
    of("object.remove", 2, Parts),
    of("object.union", 2, Parts),
    of("object.union_n", 1, Parts),
    of("product", 1, Scalar),
    of("regex.match", 2, Scalar),
    of("replace", 3, Scalar),
    of("sort", 1, Parts),
    of("split", 2, Parts),
    of("sprintf", 2, Scalar),
    of("startswith", 2, Scalar),
    of("strings.any_prefix_match", 2, Scalar),
    of("strings.any_suffix_match", 2, Scalar),
    of("strings.count", 2, Scalar),
    of("strings.reverse", 1, Scalar),
    of("strings.split_n", 3, Parts),
    of("substring", 3, Scalar),
    of("sum", 1, Scalar),
    of("time.clock", 1, Parts),
    of("time.date", 1, Parts),
    of("time.parse_rfc3339_ns", 1, Scalar),
    of("time.weekday", 1, Scalar),
    of("trim", 2, Scalar),
    of("trim_left", 2, Scalar),
    of("trim_prefix", 2, Scalar),
    of("trim_right", 2, Scalar),
    of("trim_space", 1, Scalar),
    of("trim_suffix", 2, Scalar),
    test("type_name"),
    of("union", 1, Set),
    of("upper", 1, Scalar),
];

/// OPA's names for what the accepted operators stand for: `:=`, `==`, `!=`, ordering, arithmetic, sets, `in`.
pub const OPERATORS: &[&str] = &[
    "and",
    "assign",
    "eq",
    "equal",
    "gt",
    "gte",
    "internal.member_2",
    "lt",
    "lte",
    "minus",
    "mul",
    "neq",
    "or",
    "plus",
    "rem",
];

/// Why a built-in that exists somewhere is not in the list above, and what to write instead.
pub fn why_refused(name: &str) -> String {
    let reason = match name {
        "time.now_ns" | "rand.intn" | "uuid.rfc4122" | "opa.runtime" => "a decision must depend on its input only: use `input.context.time`",
        "http.send" | "net.lookup_ip_addr" => "a decision must not reach out: bring the value in as data",
        "time.add_date" => "the engines disagree on month ends: compare time.parse_rfc3339_ns values, or compute the date when data is built",
        "strings.replace_n" => "the engines replace in different orders: chain `replace` calls",
        "json.match_schema" | "json.verify_schema" => "the engines report different errors: the sidecar validates its input already",
        "print" | "trace" => "it would write policy values where they are not protected: use `sidecar replay` to look into a decision",
        "to_number" | "units.parse" | "round" | "ceil" | "floor" => "it may yield a fraction, on which the engines differ: keep numbers as integers in data",
        "walk" => "the engines iterate differently: name the path, or use `some … in`",
        "glob.match" => "the engines read patterns differently: use startswith, endswith or regex.match",
        "io.jwt.decode_verify" | "io.jwt.encode_sign" | "io.jwt.encode_sign_raw" => "the sidecar verifies tokens before a policy sees them: use `input.subject`",
        name if name.starts_with("io.jwt.verify_") => "the sidecar verifies tokens before a policy sees them: use `input.subject`",
        "crypto.md5" | "crypto.sha1" | "crypto.hmac.md5" | "crypto.hmac.sha1" => "the digest is broken: use its sha256 sibling",
        "net.cidr_expand" => "one call may yield millions of addresses and cannot be interrupted: use net.cidr_contains",
        "json.marshal" | "json.marshal_with_options" | "yaml.marshal" => "the engines write some values differently: compare the values themselves",
        "object.subset" => "OPA counts an element that an array repeats twice: use `every`, or set difference",
        _ => "it is missing in the embedded engine or not known to agree with OPA: bring the result in as data",
    };
    format!("`{name}` is refused: {reason}")
}

pub fn is_known_root(name: &str) -> bool {
    ALLOWED.iter().any(|b| b.name.split('.').next() == Some(name))
        || matches!(name, "print" | "walk" | "trace" | "crypto" | "io" | "graphql" | "rego" | "providers")
}

pub fn find(name: &str) -> Option<&'static Builtin> {
    ALLOWED.iter().find(|b| b.name == name)
}

fn text(expr: &ExprRef) -> Option<&str> {
    match expr.as_ref() {
        Expr::String { value: Value::String(s), .. } | Expr::RawString { value: Value::String(s), .. } => Some(s),
        _ => None,
    }
}

fn integer(expr: &ExprRef) -> Option<i64> {
    match expr.as_ref() {
        Expr::Number { value, .. } => value.as_i64().ok(),
        Expr::UnaryExpr { expr, .. } => match expr.as_ref() {
            Expr::Number { value, .. } => value.as_i64().ok().map(|v| -v),
            _ => None,
        },
        _ => None,
    }
}

const MAX_RANGE: i64 = 10_000;

/// Conditions on the arguments of an allowed built-in. `Err` says what to do.
pub fn check_arguments(name: &str, params: &[ExprRef]) -> Result<(), String> {
    match (name, params) {
        ("numbers.range", [from, to]) => match (integer(from), integer(to)) {
            (Some(a), Some(b)) if a.abs_diff(b) <= MAX_RANGE as u64 => Ok(()),
            (Some(_), Some(_)) => Err(format!("at most {MAX_RANGE} numbers: one built-in call cannot be interrupted")),
            _ => Err("its bounds must be integer literals: one built-in call cannot be interrupted".to_string()),
        },
        ("sprintf", [format, values]) => {
            let Some(format) = text(format) else {
                return Err("its format must be a string literal".to_string());
            };
            let verbs = patterns::format_verbs(format)
                .map_err(|verb| format!("{verb} prints some values differently in the two engines: use %v"))?;
            match values.as_ref() {
                Expr::Array { items, .. } if items.len() == verbs => Ok(()),
                Expr::Array { items, .. } => Err(format!("the format takes {verbs} values, {} are given", items.len())),
                _ => Err("its values must be written as an array".to_string()),
            }
        }
        ("regex.match", [pattern, _]) => {
            let Some(pattern) = text(pattern) else {
                return Err("its pattern must be a string literal".to_string());
            };
            patterns::regex_differs(pattern).map_or(Ok(()), |why| Err(format!("the pattern uses {why}")))
        }
        ("format_int", [_, base]) => match integer(base) {
            Some(2 | 8 | 10 | 16) => Ok(()),
            _ => Err("its base must be 2, 8, 10 or 16, as a literal".to_string()),
        },
        _ => Ok(()),
    }
}
