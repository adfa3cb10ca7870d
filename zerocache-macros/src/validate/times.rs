//! Times: literals are checked here, expressions by the compiler.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprClosure, ExprLit, ExprUnary, Lit, Result, UnOp};

use super::ungroup;
use crate::lifetime::{LIFETIME, Range, TTL_SECONDS_MAX};

/// The maximum age of a value in the near cache.
pub(super) const NEAR: Range = Range { what: "an age", min_ms: 1, max_ms: TTL_SECONDS_MAX * 1_000 };

/// The time for which the near cache serves values while no node can be reached.
pub(super) const OUTAGE: Range = Range { what: "an outage", min_ms: 1, max_ms: 86_400_000 };

/// The time for which a value past its lifetime is usable.
pub(super) const STALE: Range =
    Range { what: "a stale time", min_ms: 1, max_ms: TTL_SECONDS_MAX * 1_000 };

/// The wait for a computation while there is a previous value.
pub(super) const SOFT_TIMEOUT: Range =
    Range { what: "a soft timeout", min_ms: 1, max_ms: 3_600_000 };

/// The time before the end of a lifetime in which callers may refresh.
pub(super) const AHEAD: Range =
    Range { what: "a time ahead", min_ms: 1, max_ms: TTL_SECONDS_MAX * 1_000 };

/// The time without a use after which a value ends.
pub(super) const IDLE: Range =
    Range { what: "a time to idle", min_ms: 4_000, max_ms: TTL_SECONDS_MAX * 1_000 };

/// The life of a lease. The maximum is that of the nodes.
pub(super) const LEASE_LIFE: Range = Range { what: "a lease's life", min_ms: 1, max_ms: 300_000 };

/// The wait for another process's lease; zero for none. The maximum is the longest wait of nodes.
pub(super) const LEASE_WAIT: Range = Range { what: "a wait", min_ms: 0, max_ms: 60_000 };

/// A validated time.
pub(crate) enum Time {
    Ms { ms: u64, span: Span },
    Expression(Expr),
}

/// The lifetime of stored values.
pub(crate) enum Ttl {
    Ms(u64),
    Expression(Expr),
    OfValue(ExprClosure),
}

impl Ttl {
    pub(super) fn new(ttl: Option<Expr>) -> Result<Self> {
        /// The lifetime if the attribute has none, in milliseconds.
        const TTL_MS_DEFAULT: u64 = 60_000;

        let written = "the lifetime is in whole seconds (42), a text (\"5m\"), an expression, or \
                       a closure over the value";
        let Some(ttl) = ttl else {
            return Ok(Ttl::Ms(TTL_MS_DEFAULT));
        };
        match ungroup(ttl) {
            Expr::Closure(closure) => {
                if closure.inputs.len() != 1 || closure.asyncness.is_some() {
                    let message = "the closure takes the value: |user: &User| user.max_age";
                    return Err(Error::new_spanned(closure, message));
                }
                Ok(Ttl::OfValue(closure))
            }
            other => read(other, LIFETIME, written).map(|time| match time {
                Time::Ms { ms, .. } => Ttl::Ms(ms),
                Time::Expression(expr) => Ttl::Expression(expr),
            }),
        }
    }
}

impl Time {
    /// Validates a time other than the lifetime of the function's values.
    pub(super) fn new(time: Expr, range: Range) -> Result<Self> {
        let example = if range.min_ms < 1_000 { "500ms" } else { "5s" };
        let written = format!(
            "{} is in whole seconds (2), a text (\"{example}\"), or an expression",
            range.what
        );
        match ungroup(time) {
            closure @ Expr::Closure(_) => Err(Error::new_spanned(
                closure,
                format!("{written}; only `ttl` is computed from the value"),
            )),
            other => read(other, range, &written),
        }
    }

    pub(crate) fn span(&self) -> Span {
        match self {
            Time::Ms { span, .. } => *span,
            Time::Expression(expr) => expr.span(),
        }
    }

    pub(super) fn optional(time: Option<Expr>, range: Range) -> Result<Option<Self>> {
        time.map(|time| Time::new(time, range)).transpose()
    }
}

/// Parses a literal, and passes other expressions on.
fn read(time: Expr, range: Range, written: &str) -> Result<Time> {
    let wrong = |lit: &dyn quote::ToTokens| Err(Error::new_spanned(lit, written));
    let done = |read: std::result::Result<u64, String>, span| {
        read.map(|ms| Time::Ms { ms, span }).map_err(|message| Error::new(span, message))
    };
    match time {
        Expr::Lit(ExprLit { lit: Lit::Int(seconds), .. }) => {
            let checked = seconds.base10_parse::<u64>().map_err(|e| e.to_string());
            let checked = checked.and_then(|seconds| range.seconds(seconds));
            done(checked, seconds.span())
        }
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
            done(range.text(&text.value()), text.span())
        }
        Expr::Lit(lit) => wrong(&lit),
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) if matches!(*expr, Expr::Lit(_)) => {
            wrong(&expr)
        }
        other => Ok(Time::Expression(other)),
    }
}
