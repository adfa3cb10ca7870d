//! The parsed arguments of the attribute.

mod freshness;
mod group;

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, Ident, LitBool, LitInt, LitStr, Path, Result, Token, parenthesized};

pub(crate) use freshness::{Lease, Near, Negative, Stale};

const NAMES: &str = "region, client, ttl, key, skip(…), call, name, version, near, lease, \
                     stale(…), soft_timeout, max_concurrent, ahead, tti, jitter, negative(…), tags, cache_if, ack, codec, crate";

/// The content of `#[zerocache(…)]`: positional region and lifetime, then named arguments.
#[derive(Default)]
pub(crate) struct Attr {
    pub(crate) region: Option<Expr>,
    /// The region is written `region = …` or `client = …`.
    pub(crate) is_region_named: bool,
    pub(crate) ttl: Option<Expr>,
    pub(crate) key: Option<Expr>,
    pub(crate) skip: Vec<Ident>,
    pub(crate) call: Option<CallArgument>,
    pub(crate) name: Option<LitStr>,
    pub(crate) version: Option<LitInt>,
    pub(crate) near: Option<Near>,
    pub(crate) lease: Option<Lease>,
    pub(crate) stale: Option<Stale>,
    /// `soft_timeout = …`, and the span of its name.
    pub(crate) soft_timeout: Option<(Span, Expr)>,
    pub(crate) max_concurrent: Option<Expr>,
    pub(crate) ahead: Option<Expr>,
    /// `tti = …`, and the span of its name.
    pub(crate) tti: Option<(Span, Expr)>,
    pub(crate) jitter: Option<Expr>,
    pub(crate) negative: Option<Negative>,
    pub(crate) tags: Option<Expr>,
    pub(crate) cache_if: Option<Expr>,
    pub(crate) ack: Option<Ident>,
    pub(crate) codec: Option<Ident>,
    pub(crate) krate: Option<Path>,
    seen: Vec<String>,
}

/// `call = false` or `call = sibling`.
pub(crate) enum CallArgument {
    Plain(Span),
    Sibling(Ident),
}

/// The form of a named argument.
#[derive(Clone, Copy)]
enum Form {
    /// `name = …`
    Assigned,
    /// `name(…)`
    Listed,
    /// `name`
    Bare,
}

impl Parse for Attr {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut attr = Attr::default();
        let mut positional = 0;
        while !input.is_empty() {
            if let Some(form) = form(input) {
                attr.named(form, input)?;
                positional = usize::MAX;
            } else {
                attr.positional(input, positional)?;
                positional += 1;
            }
            if input.is_empty() {
                break;
            }
            if !input.peek(Token![,]) {
                return Err(input.error("expected `,` between the arguments of #[zerocache]"));
            }
            input.parse::<Token![,]>()?;
        }
        Ok(attr)
    }
}

/// Returns the form of the next argument, if it is a named one.
///
/// Only names of arguments that can have the form are accepted, because a region and a lifetime may be calls and
/// names too.
fn form(input: ParseStream<'_>) -> Option<Form> {
    let fork = input.fork();
    let name = fork.call(Ident::parse_any).ok()?;
    let is_one_of = |names: &[&str]| names.iter().any(|known| name == known);
    if fork.peek(Token![=]) && !fork.peek(Token![==]) {
        return Some(Form::Assigned);
    }
    let listed =
        ["skip", "near", "lease", "stale", "soft_timeout", "max_concurrent", "ahead", "tti"];
    let listed = is_one_of(&listed)
        || is_one_of(&["jitter", "negative"])
        || is_one_of(&["tags", "cache_if", "ack", "codec", "background"]);
    if fork.peek(syn::token::Paren) && listed {
        return Some(Form::Listed);
    }
    let ends = fork.is_empty() || fork.peek(Token![,]);
    let bare = ["skip", "near", "lease", "stale", "negative", "background"];
    (ends && is_one_of(&bare)).then_some(Form::Bare)
}

impl Attr {
    /// Parses one named argument.
    fn named(&mut self, form: Form, input: ParseStream<'_>) -> Result<()> {
        let name = input.call(Ident::parse_any)?;
        let text = name.to_string();
        let slot = if text == "client" { "region".to_owned() } else { text.clone() };
        if self.seen.contains(&slot) {
            return Err(Error::new(name.span(), format!("`{text}` is given twice")));
        }
        self.seen.push(slot);
        match form {
            Form::Assigned => {
                input.parse::<Token![=]>()?;
                self.assigned(&name, &text, input)
            }
            Form::Listed => self.listed(name, &text, input),
            Form::Bare if text == "near" => {
                self.near = Some(Near::default());
                Ok(())
            }
            Form::Bare => Err(wrong_form(&name, &text)),
        }
    }

    fn assigned(&mut self, name: &Ident, text: &str, input: ParseStream<'_>) -> Result<()> {
        match text {
            "region" | "client" => {
                self.region = Some(input.parse()?);
                self.is_region_named = true;
            }
            "ttl" => self.ttl = Some(input.parse()?),
            "key" => self.key = Some(input.parse()?),
            "call" => self.call = Some(call(input)?),
            "name" => self.name = Some(literal(input, "`name` is a string literal")?),
            "version" => {
                self.version = Some(literal(input, "`version` is an integer literal")?);
            }
            "near" => self.near = Some(Near { age: Some(input.parse()?), outage: None }),
            "lease" => self.lease = Some(Lease::assigned(input)?),
            "soft_timeout" => self.soft_timeout = Some((name.span(), input.parse()?)),
            "max_concurrent" => self.max_concurrent = Some(input.parse()?),
            "ahead" => self.ahead = Some(input.parse()?),
            "tti" => self.tti = Some((name.span(), input.parse()?)),
            "jitter" => self.jitter = Some(input.parse()?),
            "tags" => self.tags = Some(input.parse()?),
            "cache_if" => self.cache_if = Some(input.parse()?),
            "ack" => self.ack = Some(ack(input)?),
            "codec" => self.codec = Some(codec(input)?),
            "crate" => self.krate = Some(input.call(Path::parse_mod_style)?),
            "skip" | "stale" | "negative" | "background" => return Err(wrong_form(name, text)),
            _ => {
                let message = format!("unknown argument `{text}`; #[zerocache] knows {NAMES}");
                return Err(Error::new(name.span(), message));
            }
        }
        Ok(())
    }

    fn listed(&mut self, name: Ident, text: &str, input: ParseStream<'_>) -> Result<()> {
        match text {
            "skip" => {
                let content;
                parenthesized!(content in input);
                let names = Punctuated::<SkipName, Token![,]>::parse_terminated(&content)?;
                self.skip = names.into_iter().map(|name| name.0).collect();
            }
            "near" => self.near = Some(Near::listed(name, input)?),
            "lease" => self.lease = Some(Lease::listed(name, input)?),
            "stale" => self.stale = Some(Stale::listed(name, input)?),
            "negative" => self.negative = Some(Negative::listed(name, input)?),
            _ => return Err(wrong_form(&name, text)),
        }
        Ok(())
    }

    fn positional(&mut self, input: ParseStream<'_>, position: usize) -> Result<()> {
        let (slot, name) = match position {
            0 => (&mut self.region, "region"),
            1 => (&mut self.ttl, "ttl"),
            _ => {
                if let Some(name) = listed_name(input) {
                    return Err(wrong_form(&name, &name.to_string()));
                }
                let span = input.parse::<Expr>().map_or(input.span(), |e| e.span());
                let message = format!(
                    "only the region and the lifetime go without a name, and they go first; \
                     #[zerocache] knows {NAMES}"
                );
                return Err(Error::new(span, message));
            }
        };
        *slot = Some(input.parse()?);
        self.seen.push(name.to_owned());
        Ok(())
    }
}

/// Parses the `key` of `key(…)`, for arguments that are written with `=`.
fn listed_name(input: ParseStream<'_>) -> Option<Ident> {
    let fork = input.fork();
    let name = fork.call(Ident::parse_any).ok()?;
    let known = ["region", "client", "ttl", "key", "call", "name", "version", "crate"];
    (fork.peek(syn::token::Paren) && known.iter().any(|known| name == known)).then_some(name)
}

/// Returns the error for an argument that is written in another form.
fn wrong_form(name: &Ident, text: &str) -> Error {
    let right = match text {
        "region" => "region = \"london\"",
        "client" => "client = &self.cache",
        "ttl" => "ttl = \"5m\"",
        "key" => "key = (&self.tenant, id)",
        "call" => "call = price_call",
        "name" => "name = \"shop::price\"",
        "version" => "version = 2",
        "crate" => "crate = ::facade::zerocache_client",
        "skip" => "skip(a, b)",
        "near" => "near`, `near = \"2s\"` or `near(outage = \"10m\")",
        "lease" => "lease = region`, `lease = all` or `lease(region, wait = \"3s\")",
        "stale" => "stale(while = \"1m\", if_error = \"1h\")",
        "background" => "stale(while = \"1m\", background)",
        "soft_timeout" => "soft_timeout = \"200ms\"",
        "max_concurrent" => "max_concurrent = 4",
        "ahead" => "ahead = \"30s\"",
        "tti" => "tti = \"10m\"",
        "jitter" => "jitter = 10",
        "negative" => "negative(none = \"5s\")",
        "tags" => "tags = [\"users\"]",
        "cache_if" => "cache_if = |user: &User| user.active",
        "codec" => "codec = messagepack",
        _ => "ack = region",
    };
    Error::new(name.span(), format!("write `{right}`"))
}

/// A name in `skip(…)`; `self` is one.
struct SkipName(Ident);

impl Parse for SkipName {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.peek(Ident::peek_any) {
            return input.call(Ident::parse_any).map(SkipName);
        }
        Err(input.error("`skip(…)` takes names of parameters"))
    }
}

fn literal<T: Parse>(input: ParseStream<'_>, message: &str) -> Result<T> {
    let span = input.span();
    input.parse().map_err(|_| Error::new(span, message))
}

fn ack(input: ParseStream<'_>) -> Result<Ident> {
    let span = input.span();
    let word = input.call(Ident::parse_any).ok();
    let word = word.filter(|word| ["local", "region", "all"].iter().any(|known| word == known));
    word.ok_or_else(|| Error::new(span, "`ack` is `local`, `region` or `all`"))
}

fn codec(input: ParseStream<'_>) -> Result<Ident> {
    let span = input.span();
    let word = input.call(Ident::parse_any).ok();
    let known = ["auto", "bincode", "messagepack"];
    let word = word.filter(|word| known.iter().any(|known| word == known));
    word.ok_or_else(|| Error::new(span, "`codec` is `auto`, `bincode` or `messagepack`"))
}

fn call(input: ParseStream<'_>) -> Result<CallArgument> {
    if input.peek(LitBool) {
        let flag: LitBool = input.parse()?;
        if flag.value {
            let message = "`call` is `false` (an async function keeps its signature) or a name \
                           (a sync function gets a sibling that returns the call)";
            return Err(Error::new(flag.span(), message));
        }
        return Ok(CallArgument::Plain(flag.span()));
    }
    literal(input, "`call` is `false` or the name of a sibling function").map(CallArgument::Sibling)
}
