//! The arguments of the attribute, as they were written.

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, Ident, LitBool, LitInt, LitStr, Path, Result, Token, parenthesized};

const NAMES: &str = "region, client, ttl, key, skip(…), call, name, version, crate";

/// What stands in `#[zerocache(…)]`: positional region and lifetime, then named arguments.
#[derive(Default)]
pub(crate) struct Attr {
    pub(crate) region: Option<Expr>,
    pub(crate) ttl: Option<Expr>,
    pub(crate) key: Option<Expr>,
    pub(crate) skip: Vec<Ident>,
    pub(crate) call: Option<CallArgument>,
    pub(crate) name: Option<LitStr>,
    pub(crate) version: Option<LitInt>,
    pub(crate) krate: Option<Path>,
    seen: Vec<String>,
}

/// `call = false` or `call = sibling`.
pub(crate) enum CallArgument {
    Plain(Span),
    Sibling(Ident),
}

impl Parse for Attr {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut attr = Attr::default();
        let mut positional = 0;
        while !input.is_empty() {
            if attr.named(input)? {
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

impl Attr {
    /// Parses one named argument, or reports that the next one is positional.
    fn named(&mut self, input: ParseStream<'_>) -> Result<bool> {
        let assigned = input.peek2(Token![=]) && !input.peek2(Token![==]);
        let listed = input.peek(Ident) && input.peek2(syn::token::Paren) && {
            let fork = input.fork();
            fork.parse::<Ident>()? == "skip"
        };
        if !(listed || assigned && input.peek(Ident::peek_any)) {
            return Ok(false);
        }
        let name = input.call(Ident::parse_any)?;
        let text = name.to_string();
        let slot = if text == "client" { "region".to_owned() } else { text.clone() };
        if self.seen.contains(&slot) {
            return Err(Error::new(name.span(), format!("`{text}` is given twice")));
        }
        self.seen.push(slot);
        if listed {
            let content;
            parenthesized!(content in input);
            let names = Punctuated::<SkipName, Token![,]>::parse_terminated(&content)?;
            self.skip = names.into_iter().map(|name| name.0).collect();
            return Ok(true);
        }
        input.parse::<Token![=]>()?;
        self.value(&name, &text, input)?;
        Ok(true)
    }

    fn value(&mut self, name: &Ident, text: &str, input: ParseStream<'_>) -> Result<()> {
        match text {
            "region" | "client" => self.region = Some(input.parse()?),
            "ttl" => self.ttl = Some(input.parse()?),
            "key" => self.key = Some(input.parse()?),
            "skip" => return Err(Error::new(name.span(), "write `skip(a, b)`")),
            "call" => self.call = Some(call(input)?),
            "name" => self.name = Some(literal(input, "`name` is a string literal")?),
            "version" => {
                self.version = Some(literal(input, "`version` is an integer literal")?);
            }
            "crate" => self.krate = Some(input.call(Path::parse_mod_style)?),
            _ => {
                let message = format!("unknown argument `{text}`; #[zerocache] knows {NAMES}");
                return Err(Error::new(name.span(), message));
            }
        }
        Ok(())
    }

    fn positional(&mut self, input: ParseStream<'_>, position: usize) -> Result<()> {
        let (slot, name) = match position {
            0 => (&mut self.region, "region"),
            1 => (&mut self.ttl, "ttl"),
            _ => {
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
