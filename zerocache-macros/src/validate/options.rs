//! Validation of options: freshness, leases, negative caching, storage.

use proc_macro2::Span;
use syn::visit::Visit;
use syn::{
    Error, Expr, ExprLit, FnArg, Ident, Lifetime, Lit, LitStr, Pat, ReceiverKind, Result,
    TypeReference,
};

use zerocache_core::metadata::{Metadata, TAGS_MAX};

use super::seen::{self, Seen};
use super::times::{
    AHEAD, IDLE, LEASE_LIFE, LEASE_WAIT, NEAR, OUTAGE, SOFT_TIMEOUT, STALE, Time, Ttl,
};
use super::ungroup;
use crate::ast::{Function, Kind};
use crate::attr::{self, Attr};
use crate::check::Errors;
use crate::lifetime::LIFETIME;

/// The validated options. Without options a call is a plain lookup, computation and store.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) near: Option<Near>,
    pub(crate) lease: Option<Lease>,
    pub(crate) stale_while: Option<Time>,
    pub(crate) stale_if_error: Option<Time>,
    /// The span of `background`.
    pub(crate) background: Option<Span>,
    pub(crate) soft_timeout: Option<Time>,
    /// The span of the argument because of which computations may move to another task.
    pub(crate) detached: Option<Span>,
    /// A number of runs.
    pub(crate) max_concurrent: Option<Expr>,
    pub(crate) ahead: Option<Time>,
    pub(crate) tti: Option<Time>,
    /// Percent.
    pub(crate) jitter: Option<Expr>,
    pub(crate) negative_none: Option<Time>,
    pub(crate) negative_err: Option<(Expr, Time)>,
    pub(crate) tags: Option<Tags>,
    pub(crate) cache_if: Option<Expr>,
    /// `local`, `region` or `all`.
    pub(crate) ack: Option<Ident>,
    /// `auto`, `bincode` or `messagepack`.
    pub(crate) codec: Option<Ident>,
}

/// The near cache, with times of its own or without.
pub(crate) struct Near {
    pub(crate) age: Option<Time>,
    pub(crate) outage: Option<Time>,
}

/// A lease.
pub(crate) struct Lease {
    /// `region` or `all`.
    pub(crate) scope: Ident,
    pub(crate) life: Option<Time>,
    pub(crate) wait: Option<Time>,
}

/// Tags.
pub(crate) enum Tags {
    /// Validated literals, and expressions.
    List(Vec<LitStr>, Vec<Expr>),
    Expression(Expr),
}

impl Options {
    /// Takes the options out of the attribute; adds misuse to `errors`.
    pub(super) fn new(
        attr: &mut Attr,
        ttl: Option<&Ttl>,
        function: &Function,
        errors: &mut Errors,
    ) -> Self {
        let mut options = Options::default();
        options.add_soft_timeout(attr, function, errors);
        if let Some(attr::Near { age, outage }) = attr.near.take() {
            let age = errors.take(Time::optional(age, NEAR)).flatten();
            let outage = errors.take(Time::optional(outage, OUTAGE)).flatten();
            options.near = Some(Near { age, outage });
        }
        if let Some(attr::Lease { scope, life, wait }) = attr.lease.take() {
            let life = errors.take(Time::optional(life, LEASE_LIFE)).flatten();
            let wait = errors.take(Time::optional(wait, LEASE_WAIT)).flatten();
            options.lease = Some(Lease { scope, life, wait });
        }
        if let Some(stale) = attr.stale.take() {
            options.stale_while = errors.take(Time::optional(stale.serve_while, STALE)).flatten();
            let if_error = stale.if_error.map(|time| if_error(time, function));
            options.stale_if_error = if_error.and_then(|time| errors.take(time));
            if let Some(word) = stale.background {
                options.background = Some(word.span());
                options.detached = Some(word.span());
                detached("background", word.span(), function, errors);
            }
        }
        let runs = attr.max_concurrent.take().map(max_concurrent);
        options.max_concurrent = runs.and_then(|runs| errors.take(runs));
        options.tti = attr.tti.take().and_then(|tti| errors.take(time_to_idle(tti, attr, ttl)));
        options.ahead = attr.ahead.take().and_then(|time| errors.take(ahead(time, ttl)));
        options.jitter = attr.jitter.take().and_then(|percent| errors.take(jitter(percent)));
        if let Some(attr::Negative { none, err }) = attr.negative.take() {
            let none = none.map(|none| negative_none(none, function));
            options.negative_none = none.and_then(|none| errors.take(none));
            let err = err.map(|(err, ttl)| negative_err(err, ttl, function));
            options.negative_err = err.and_then(|err| errors.take(err));
        }
        options.tags = attr.tags.take().and_then(|list| errors.take(tags(list)));
        let cache_if = attr.cache_if.take();
        let message = "`cache_if` takes the value: |user: &User| user.active";
        let cache_if = cache_if.map(|rule| predicate(rule, message));
        options.cache_if = cache_if.and_then(|rule| errors.take(rule));
        options.ack = attr.ack.take();
        options.codec = attr.codec.take();
        if let Some(word) = options.codec.as_ref().filter(|word| *word == "bincode") {
            errors.take(without_json(word, function));
        }
        options
    }

    /// Takes the soft timeout, before what it needs is taken.
    fn add_soft_timeout(&mut self, attr: &mut Attr, function: &Function, errors: &mut Errors) {
        let Some((name, time)) = attr.soft_timeout.take() else { return };
        if attr.stale.is_none() && attr.ahead.is_none() {
            let message = "`soft_timeout` serves the previous value when computing takes longer, and this \
                           function has none to serve: say for how long it may be served past its \
                           lifetime, such as `stale(if_error = \"1h\")`";
            errors.add(Error::new(name, message));
        }
        self.soft_timeout = errors.take(Time::new(time, SOFT_TIMEOUT));
        self.detached = Some(name);
        let is_checked = attr.stale.as_ref().is_some_and(|stale| stale.background.is_some());
        if !is_checked {
            detached("soft_timeout", name, function, errors);
        }
    }
}

/// Checks that the value is not visibly of a type that bincode cannot read.
fn without_json(word: &Ident, function: &Function) -> Result<()> {
    if !function.output().is_some_and(seen::has_json) {
        return Ok(());
    }
    let message = "bincode cannot read a `serde_json::Value`: leave `codec` out, or write \
                   `codec = messagepack`";
    Err(Error::new(word.span(), message))
}

fn ahead(time: Expr, ttl: Option<&Ttl>) -> Result<Time> {
    let time = Time::new(time, AHEAD)?;
    if let (Time::Ms { ms: ahead, span }, Some(Ttl::Ms(ttl))) = (&time, ttl)
        && ahead >= ttl
    {
        let message = format!(
            "`ahead` is the last part of the lifetime, and shorter than all of it, which is {} s",
            ttl / 1_000
        );
        return Err(Error::new(*span, message));
    }
    Ok(time)
}

fn time_to_idle((name, time): (Span, Expr), attr: &Attr, ttl: Option<&Ttl>) -> Result<Time> {
    if attr.ahead.is_some() {
        let message = "`ahead` refreshes a value before its end, which `tti` puts off with each use: write one of them";
        return Err(Error::new(name, message));
    }
    let time = Time::new(time, IDLE)?;
    if let (Time::Ms { ms: idle, span }, Some(Ttl::Ms(ttl))) = (&time, ttl)
        && idle >= ttl
    {
        let message = format!(
            "`tti` is shorter than the lifetime, which is the most that uses give a value: {} s",
            ttl / 1_000
        );
        return Err(Error::new(*span, message));
    }
    Ok(time)
}

fn jitter(percent: Expr) -> Result<Expr> {
    /// Validates the percentage of jitter.
    const JITTER_MAX: u8 = 50;

    match ungroup(percent) {
        Expr::Lit(ExprLit { lit: Lit::Int(number), attrs }) => match number.base10_parse::<u8>() {
            Ok(1..=JITTER_MAX) => Ok(Expr::Lit(ExprLit { lit: Lit::Int(number), attrs })),
            _ => {
                let message = format!(
                    "a jitter of {number} is out of range: 1 to {JITTER_MAX} percent of the lifetime"
                );
                Err(Error::new(number.span(), message))
            }
        },
        wrong @ (Expr::Lit(_) | Expr::Closure(_) | Expr::Unary(_)) => {
            let message = "`jitter` is a percentage of the lifetime: 1 to 50";
            Err(Error::new_spanned(wrong, message))
        }
        other => Ok(other),
    }
}

fn max_concurrent(runs: Expr) -> Result<Expr> {
    match ungroup(runs) {
        Expr::Lit(ExprLit { lit: Lit::Int(number), attrs }) => match number.base10_parse::<u32>() {
            Ok(1..) => Ok(Expr::Lit(ExprLit { lit: Lit::Int(number), attrs })),
            _ => {
                let message =
                    format!("`max_concurrent` of {number} is out of range: at least 1 run");
                Err(Error::new(number.span(), message))
            }
        },
        wrong @ (Expr::Lit(_) | Expr::Closure(_) | Expr::Unary(_)) => {
            let message = "`max_concurrent` is how many runs of the function may be in progress in \
                           this process: max_concurrent = 4";
            Err(Error::new_spanned(wrong, message))
        }
        other => Ok(other),
    }
}

fn if_error(time: Expr, function: &Function) -> Result<Time> {
    if let Some(output) = function.output().filter(|ty| seen::result(ty) == Seen::No) {
        let message = "`stale(if_error = …)` is a value in place of an `Err`; this function returns \
                       no `Result`";
        return Err(Error::new_spanned(output, message));
    }
    Time::new(time, STALE)
}

fn negative_none(none: Expr, function: &Function) -> Result<Time> {
    if let Some(output) = function.output().filter(|ty| seen::option(ty) == Seen::No) {
        let message = "`negative(none = …)` is the lifetime of a `None`; this function returns no \
                       `Option` and no `Result` of one";
        return Err(Error::new_spanned(output, message));
    }
    Time::new(none, LIFETIME)
}

fn negative_err(err: Expr, ttl: Expr, function: &Function) -> Result<(Expr, Time)> {
    if let Some(output) = function.output().filter(|ty| seen::result(ty) == Seen::No) {
        let message = "`negative(err = …)` says which errors are kept; this function returns no \
                       `Result`";
        return Err(Error::new_spanned(output, message));
    }
    let message = "`err` takes the error, and says whether it is kept: |e: &MyError| e.is_final()";
    Ok((predicate(err, message)?, Time::new(ttl, LIFETIME)?))
}

/// Checks that an expression is a closure with one argument, or may be a function.
fn predicate(rule: Expr, message: &str) -> Result<Expr> {
    match ungroup(rule) {
        Expr::Closure(closure) if closure.inputs.len() != 1 || closure.asyncness.is_some() => {
            Err(Error::new_spanned(closure, message))
        }
        wrong @ Expr::Lit(_) => Err(Error::new_spanned(wrong, message)),
        other => Ok(other),
    }
}

fn tags(list: Expr) -> Result<Tags> {
    let written = "`tags` is a list of texts: tags = [\"users\", format!(\"tenant:{tenant}\")]";
    let elements: Vec<Expr> = match ungroup(list) {
        Expr::Array(array) if array.elems.is_empty() => {
            let message = "`tags` is empty; leave it out, or name some";
            return Err(Error::new_spanned(array, message));
        }
        Expr::Array(array) => array.elems.into_iter().map(ungroup).collect(),
        wrong @ (Expr::Lit(_) | Expr::Tuple(_) | Expr::Closure(_)) => {
            return Err(Error::new_spanned(wrong, written));
        }
        other => return Ok(Tags::Expression(other)),
    };
    let (mut literals, mut expressions) = (Vec::new(), Vec::new());
    let mut checked = Metadata::default();
    for (position, element) in elements.into_iter().enumerate() {
        if position >= TAGS_MAX {
            let message = format!("an entry has at most {TAGS_MAX} tags");
            return Err(Error::new_spanned(element, message));
        }
        match element {
            Expr::Lit(ExprLit { lit: Lit::Str(name), .. }) => {
                let text = name.value();
                if checked.tags().contains(&text) {
                    let message = format!("the tag {text:?} is given twice");
                    return Err(Error::new(name.span(), message));
                }
                checked.add_tag(text).map_err(|error| Error::new(name.span(), error))?;
                literals.push(name);
            }
            Expr::Lit(wrong) => return Err(Error::new_spanned(wrong, written)),
            other => expressions.push(other),
        }
    }
    Ok(Tags::List(literals, expressions))
}

/// Checks that a task, which may outlive the call, owns its arguments. `argument` is why there is one.
fn detached(argument: &str, span: Span, function: &Function, errors: &mut Errors) {
    if matches!(function.kind, Kind::Boxed) {
        let message = format!(
            "`{argument}` is not for functions that return a boxed future: memoize an inherent \
             function and delegate to it"
        );
        return errors.add(Error::new(span, message));
    }
    for input in &function.sig.inputs {
        let mut borrowed = Borrowed(false);
        let (name, example) = match input {
            FnArg::Receiver(receiver) => {
                borrowed.0 = matches!(receiver.kind, ReceiverKind::Reference(..));
                borrowed.visit_receiver(receiver);
                ("`self`".to_owned(), "`self: Arc<Self>`")
            }
            FnArg::Typed(typed) => {
                borrowed.visit_type(&typed.ty);
                let name = match &*typed.pat {
                    Pat::Ident(pat) => format!("`{}`", pat.ident),
                    _ => "this parameter".to_owned(),
                };
                (name, "`String` or `Arc`")
            }
        };
        if borrowed.0 {
            let message = format!(
                "`{argument}` computes in a task that outlives the call: {name} must be owned \
                 (such as {example}); or leave `{argument}` out, and one caller refreshes \
                 while it waits"
            );
            errors.add(Error::new_spanned(input, message));
        }
    }
}

/// Returns true if a type visibly borrows.
struct Borrowed(bool);

impl<'ast> Visit<'ast> for Borrowed {
    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        self.0 |= reference.lifetime.is_none();
        syn::visit::visit_type_reference(self, reference);
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        self.0 |= lifetime.ident != "static";
    }
}
