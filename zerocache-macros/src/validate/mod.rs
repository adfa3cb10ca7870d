//! Validation: turns the attribute and the function into a plan, or into errors.

mod options;
mod seen;
mod times;

use proc_macro2::Span;
use syn::{Error, Expr, ExprLit, FnArg, Ident, Lit, LitStr, Pat, Path, ReceiverKind, Result, Type};

use crate::ast::{self, Function, Kind};
use crate::attr::{Attr, CallArgument};
use crate::check::{Errors, check_attributes, check_signature};
use crate::lifetime::LIFETIME;

pub(crate) use options::{Lease, Near, Options, Tags};
pub(crate) use times::{Time, Ttl};

/// The plan of the expansion.
pub(crate) struct Plan {
    pub(crate) region: Region,
    pub(crate) ttl: Ttl,
    pub(crate) key: Key,
    pub(crate) call: Handle,
    pub(crate) name: Option<String>,
    pub(crate) version: u64,
    pub(crate) options: Options,
    pub(crate) krate: Option<Path>,
}

/// The region or client.
pub(crate) enum Region {
    /// None is given: that of the environment.
    Environment,
    Name(LitStr),
    Expression(Expr),
}

/// The arguments that are part of the key.
pub(crate) enum Key {
    Expressions(Vec<Expr>),
    /// One flag per parameter: true if it is part of the key.
    Parameters(Vec<bool>),
}

/// The access to a call as a value.
pub(crate) enum Handle {
    /// The function's kind decides: async functions return it, others have none.
    Default,
    /// An async function keeps its signature.
    None,
    /// A sync function gets a sibling.
    Sibling(Ident),
}

pub(crate) fn plan(mut attr: Attr, function: &Function) -> Result<Plan> {
    let mut errors = Errors(None);
    check_attributes(function, &mut errors);
    check_signature(function, &mut errors);
    let region = errors.take(region(&mut attr));
    let ttl = errors.take(Ttl::new(attr.ttl.take()));
    let key = errors.take(key(attr.key.take(), &attr.skip, function));
    let call = errors.take(handle(attr.call.take(), function));
    let version = attr.version.take().map_or(Ok(0), |v| v.base10_parse::<u64>());
    let version = errors.take(version);
    if let Some(name) = attr.name.as_ref().filter(|name| name.value().is_empty()) {
        errors.add(Error::new(name.span(), "`name` is empty; leave it out, or give a name"));
    }
    let options = Options::new(&mut attr, ttl.as_ref(), function, &mut errors);
    match (errors.0, region, ttl, key, call, version) {
        (None, Some(region), Some(ttl), Some(key), Some(call), Some(version)) => {
            let name = attr.name.map(|name| name.value());
            Ok(Plan { region, ttl, key, call, name, version, options, krate: attr.krate })
        }
        (Some(error), ..) => Err(error),
        (None, ..) => Err(Error::new(Span::call_site(), "#[zerocache] could not be understood")),
    }
}

/// Returns the content of the invisible brackets around a fragment of `macro_rules!`.
fn ungroup(expr: Expr) -> Expr {
    match expr {
        Expr::Group(group) => ungroup(*group.expr),
        other => other,
    }
}

fn region(attr: &mut Attr) -> Result<Region> {
    let Some(region) = attr.region.take() else {
        return Ok(Region::Environment);
    };
    let is_alone = attr.ttl.is_none() && !attr.is_region_named;
    match ungroup(region) {
        Expr::Lit(ExprLit { lit: Lit::Str(name), .. }) => {
            if name.value().is_empty() {
                return Err(Error::new(name.span(), "the region is empty"));
            }
            let allowed = zerocache_core::name::check_region(&name.value());
            allowed.map_err(|error| Error::new(name.span(), error))?;
            if is_alone && LIFETIME.text(&name.value()).is_ok() {
                let message = format!(
                    "a text that goes first is the region: write `ttl = {0}` for a lifetime, or \
                     `region = {0}`",
                    name.token()
                );
                return Err(Error::new(name.span(), message));
            }
            Ok(Region::Name(name))
        }
        Expr::Lit(other) => {
            let message = "the region comes first, as a string, or as an expression that gives a \
                           name or a ZerocacheClient; without a region, write `ttl = …`";
            Err(Error::new_spanned(other, message))
        }
        other => Ok(Region::Expression(other)),
    }
}

fn key(key: Option<Expr>, skip: &[Ident], function: &Function) -> Result<Key> {
    if let (Some(key), false) = (&key, skip.is_empty()) {
        let message = "`key` says everything that is in the key; `skip` has nothing to leave out";
        return Err(Error::new_spanned(key, message));
    }
    if let Some(key) = key {
        return Ok(Key::Expressions(match key {
            Expr::Tuple(tuple) => tuple.elems.into_iter().collect(),
            other => vec![other],
        }));
    }
    let inputs: Vec<&FnArg> = function.sig.inputs.iter().collect();
    let mut included = vec![true; inputs.len()];
    for name in skip {
        let Some(position) = inputs.iter().position(|input| is_named(input, name)) else {
            let message = format!("`{}` has no parameter `{name}`", function.sig.ident);
            return Err(Error::new(name.span(), message));
        };
        if !included[position] {
            return Err(Error::new(name.span(), format!("`{name}` is skipped twice")));
        }
        included[position] = false;
    }
    for (input, _) in inputs.iter().zip(&included).filter(|(_, included)| **included) {
        if let Some(name) = mutable_reference(input) {
            let message = format!(
                "a hit would leave out the changes that are made through `{name}`: take it by \
                 shared reference, or say skip({name}) or key = (…) where that is meant"
            );
            return Err(Error::new_spanned(input, message));
        }
    }
    Ok(Key::Parameters(included))
}

fn is_named(input: &FnArg, name: &Ident) -> bool {
    match input {
        FnArg::Receiver(_) => name == "self",
        FnArg::Typed(typed) => matches!(&*typed.pat, Pat::Ident(pat) if pat.ident == *name),
    }
}

fn mutable_reference(input: &FnArg) -> Option<String> {
    match input {
        FnArg::Receiver(receiver) => match &receiver.kind {
            ReceiverKind::Reference(_, _, Some(_)) => Some("self".to_owned()),
            _ => None,
        },
        FnArg::Typed(typed) => match (ast::ungroup(&typed.ty), &*typed.pat) {
            (Type::Reference(reference), Pat::Ident(pat)) if reference.mutability.is_some() => {
                Some(pat.ident.to_string())
            }
            _ => None,
        },
    }
}

fn handle(call: Option<CallArgument>, function: &Function) -> Result<Handle> {
    match (call, &function.kind) {
        (None, _) => Ok(Handle::Default),
        (Some(CallArgument::Plain(_)), Kind::Async) => Ok(Handle::None),
        // Written on an `async fn` that another macro has boxed: it has no handle anyway.
        (Some(CallArgument::Plain(_)), Kind::Boxed) => Ok(Handle::Default),
        (Some(CallArgument::Plain(span)), _) => {
            let message = "only an async function returns its call; this one keeps its signature \
                           anyway";
            Err(Error::new(span, message))
        }
        (Some(CallArgument::Sibling(name)), Kind::Sync) => {
            if name == function.sig.ident {
                return Err(Error::new(name.span(), "the sibling needs a name of its own"));
            }
            Ok(Handle::Sibling(name))
        }
        (Some(CallArgument::Sibling(name)), Kind::Async) => {
            let message = format!(
                "an async function returns its call itself: `{}(…).key()`",
                function.sig.ident
            );
            Err(Error::new(name.span(), message))
        }
        (Some(CallArgument::Sibling(name)), Kind::Boxed) => {
            let message = "a function that returns a boxed future has no call; memoize an inherent \
                           function and delegate to it";
            Err(Error::new(name.span(), message))
        }
    }
}
