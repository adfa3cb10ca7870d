//! Expansion of the plan to code.
//!
//! Generated names have mixed-site spans, so that they neither see nor hide names of the caller. The caller's
//! statements are spliced, never wrapped in a block of their own, for which the compiler would report unused
//! braces.

mod options;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{FnArg, Ident, Pat, Signature, parse_quote};

use crate::ast::{Function, Kind};
use crate::path;
use crate::validate::{Handle, Key, Plan, Region, Ttl};

pub(crate) fn expand(plan: &Plan, function: &Function) -> TokenStream {
    let expansion = Expansion::new(plan, function);
    match (&function.kind, &plan.call) {
        (Kind::Async, Handle::None) => expansion.plain_async(),
        (Kind::Async, _) => expansion.handle(),
        (Kind::Boxed, _) => expansion.boxed(),
        (Kind::Sync, Handle::Sibling(name)) => {
            let plain = expansion.blocking();
            let sibling = expansion.sibling(name);
            quote!(#plain #sibling)
        }
        (Kind::Sync, _) => expansion.blocking(),
    }
}

struct Expansion<'a> {
    plan: &'a Plan,
    function: &'a Function,
    private: TokenStream,
    output: TokenStream,
    /// The signature with a plain name for every parameter.
    sig: Signature,
    /// The `let` statements that move all parameters into the body, with their original patterns.
    bindings: TokenStream,
    parameters: Vec<Parameter>,
}

/// A parameter that is part of the key.
struct Parameter {
    name: TokenStream,
    span: Span,
    receiver: bool,
    /// The `#[cfg(…)]`s under which it exists.
    conditions: TokenStream,
}

fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// The function's `static` site.
fn site() -> Ident {
    local("__ZEROCACHE_SITE")
}

/// The names of the parts of a call.
struct Locals {
    target: Ident,
    args: Ident,
    rule: Ident,
    policy: Ident,
    near: Ident,
}

impl Locals {
    fn new() -> Self {
        Locals {
            target: local("target"),
            args: local("args"),
            rule: local("rule"),
            policy: local("policy"),
            near: local("near"),
        }
    }
}

/// Returns a span with which errors point at the caller's code, and names resolve as generated ones.
fn at(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}

impl<'a> Expansion<'a> {
    fn new(plan: &'a Plan, function: &'a Function) -> Self {
        let mut sig = function.sig.clone();
        let mut bindings = TokenStream::new();
        let mut parameters = Vec::new();
        for (position, input) in sig.inputs.iter_mut().enumerate() {
            parameters.push(bind(position, input, &mut bindings));
        }
        Expansion {
            plan,
            function,
            private: path::private(plan.krate.as_ref()),
            output: function.output().map(ToTokens::to_token_stream).unwrap_or_default(),
            sig,
            bindings,
            parameters,
        }
    }

    /// Expands `async fn f(…) -> T` to `fn f(…) -> Call<impl Future<Output = T>>`.
    fn handle(&self) -> TokenStream {
        let (private, output) = (&self.private, &self.output);
        let mut sig = self.sig.clone();
        sig.asyncness = None;
        sig.output = parse_quote!(-> #private::Call<impl ::core::future::Future<Output = #output>>);
        self.item(true, &sig, &self.async_call())
    }

    /// Expands an async function with `call = false`, whose signature does not change.
    fn plain_async(&self) -> TokenStream {
        let call = self.async_call();
        self.item(false, &self.sig, &quote!(#call.await))
    }

    /// Expands a function that returns a boxed future, as `#[async_trait]` makes.
    fn boxed(&self) -> TokenStream {
        let (private, bindings, body) = (&self.private, &self.bindings, &self.function.body);
        let declared = &self.function.sig.output;
        let parts = self.parts();
        let call = local("call");
        let origin = quote!(#private::boxed(move || #declared { #bindings #body }));
        // Two statements: the key is taken before the parameters move into the origin.
        let code = quote! {
            let #call = #private::call(#parts, #origin);
            ::std::boxed::Box::pin(#call)
        };
        self.item(false, &self.sig, &code)
    }

    /// Expands a sync function, which blocks its caller.
    fn blocking(&self) -> TokenStream {
        let code = match (&self.plan.options.near, self.plan.options.detached) {
            (Some(_), None) => self.near_first(),
            _ => {
                let call = self.sync_call();
                quote!(#call.wait())
            }
        };
        self.item(false, &self.sig, &code)
    }

    /// Expands a sync function whose call is not created for a hit of the near cache: for a hit of some ten
    /// nanoseconds, building and moving a call matters.
    fn near_first(&self) -> TokenStream {
        let Locals { target, args, policy, near, .. } = &Locals::new();
        let (private, site, value) = (&self.private, site(), local("value"));
        let (head, tail, origin) = (self.head(), self.tail(), self.sync_origin());
        quote! {
            #head
            match #private::near(&#site, &#target, &mut #args, #near, &#policy) {
                ::core::option::Option::Some(#value) => #value,
                ::core::option::Option::None => {
                    #private::call(#tail, #private::lazy(#origin)).wait()
                }
            }
        }
    }

    /// Expands the sync function's sibling, which returns the call.
    fn sibling(&self, name: &Ident) -> TokenStream {
        let (private, output) = (&self.private, &self.output);
        let mut sig = self.sig.clone();
        sig.ident = name.clone();
        sig.output = parse_quote!(-> #private::Call<impl #private::Blocking<Output = #output>>);
        self.item(true, &sig, &self.sync_call())
    }

    fn item(&self, returns_call: bool, sig: &Signature, code: &TokenStream) -> TokenStream {
        // A call is `must_use` itself; a second `must_use` is a lint.
        let drop_must_use =
            |attr: &&syn::Attribute| !(returns_call && attr.path().is_ident("must_use"));
        let attrs = self.function.attrs.iter().filter(drop_must_use);
        let vis = &self.function.vis;
        quote! {
            #(#attrs)*
            #[allow(refining_impl_trait, clippy::used_underscore_binding)]
            #vis #sig { #code }
        }
    }

    fn async_origin(&self) -> TokenStream {
        let (output, bindings, body) = (&self.output, &self.bindings, &self.function.body);
        let value = local("value");
        // The first `return` fixes the type of the block, so that `?` and coercions work in it.
        quote! {
            async move {
                if let ::core::option::Option::Some(#value) =
                    ::core::option::Option::None::<#output>
                {
                    return #value;
                }
                #bindings
                #body
            }
        }
    }

    fn async_call(&self) -> TokenStream {
        let private = &self.private;
        let (parts, origin) = (self.parts(), self.async_origin());
        match self.plan.options.detached {
            None => quote!(#private::call(#parts, #origin)),
            Some(span) => {
                let background = Ident::new("background", at(span));
                quote!(#private::#background(#parts, move || #origin))
            }
        }
    }

    fn sync_origin(&self) -> TokenStream {
        let (output, bindings, body) = (&self.output, &self.bindings, &self.function.body);
        quote!(move || -> #output { #bindings #body })
    }

    fn sync_call(&self) -> TokenStream {
        let private = &self.private;
        let (parts, origin) = (self.parts(), self.sync_origin());
        match self.plan.options.detached {
            None => quote!(#private::call(#parts, #private::lazy(#origin))),
            Some(span) => {
                let background = Ident::new("background_sync", at(span));
                quote!(#private::#background(#parts, #origin))
            }
        }
    }

    /// Returns all parts of the call except its function.
    fn parts(&self) -> TokenStream {
        let (head, tail) = (self.head(), self.tail());
        quote!({ #head #tail })
    }

    /// Returns the `let` statements of the key and of the conversions.
    fn head(&self) -> TokenStream {
        let private = &self.private;
        let Locals { target, args, rule, policy, near } = &Locals::new();
        let (site, site_value, region, key) = (site(), self.site(), self.region(), self.key(args));
        let output = &self.output;
        let span = at(self.function.output().map_or(Span::mixed_site(), Spanned::span));
        let seal = quote_spanned!(span=>
            #rule.policy(#rule.sharing(), #rule.errors(), #rule.equality())
        );
        let near = self.near().map(|age| quote!(let #near = #age;));
        quote! {
            #[allow(unused_imports)]
            use #private::{
                PlainRule as _, NoEquality as _, NoErrors as _, NoSharing as _, ReferenceErrors as _,
                BorrowedVariant as _, OwnedVariant as _, UnsizedVariant as _,
            };
            static #site: #private::Site = #site_value;
            let #target = match #private::scoped() {
                ::core::option::Option::Some(#target) => #target,
                ::core::option::Option::None => #region,
            };
            let mut #args = #private::Args::new(
                &#site,
                #private::Instance::of(&|| ()),
            );
            #key
            let #rule = #private::Probe::<#output>::new().rule();
            let #policy = #seal;
            #near
        }
    }

    /// Returns the remaining parts, as an expression.
    fn tail(&self) -> TokenStream {
        let Locals { target, args, rule, policy, near } = &Locals::new();
        let (private, site) = (&self.private, site());
        let (lifetime, options) = (self.lifetime(rule), self.options(rule, near));
        quote! {
            #private::Parts {
                site: &#site,
                target: #target,
                args: #args,
                ttl: #lifetime,
                policy: #policy,
                options: #options,
            }
        }
    }

    fn site(&self) -> TokenStream {
        let private = &self.private;
        let function = self.function.sig.ident.to_string();
        let name = match &self.plan.name {
            Some(name) => quote!(::core::option::Option::Some(#name)),
            None => quote!(::core::option::Option::None),
        };
        let version = self.plan.version;
        let tokens = self.function.fingerprint();
        quote! {
            #private::Site::new(#private::FunctionInfo {
                function: #function,
                name: #name,
                version: #version,
                package: ::core::option_env!("CARGO_PKG_NAME"),
                module: ::core::module_path!(),
                tokens: #tokens,
                file: ::core::file!(),
                line: ::core::line!(),
                column: ::core::column!(),
            })
        }
    }

    fn region(&self) -> TokenStream {
        let private = &self.private;
        match &self.plan.region {
            Region::Environment => quote!(#private::Target::from_env()),
            Region::Name(name) => quote!(#private::Target::named(#name)),
            Region::Expression(expr) => {
                quote_spanned!(at(expr.span())=> #private::target(&(#expr)))
            }
        }
    }

    fn key(&self, args: &Ident) -> TokenStream {
        let private = &self.private;
        match &self.plan.key {
            Key::Expressions(exprs) => exprs
                .iter()
                .map(|expr| {
                    let part = Ident::new("part", at(expr.span()));
                    let variant = variant(private, args, &part.to_token_stream());
                    quote_spanned!(at(expr.span())=>
                        {
                            // Temporaries of the expression, such as a lock, are dropped before the next one.
                            let #part = &(#expr);
                            #private::argument(&mut #args, #part);
                            #variant
                        }
                    )
                })
                .collect(),
            Key::Parameters(included) => self
                .parameters
                .iter()
                .zip(included)
                .filter(|(_, included)| **included)
                .map(|(parameter, _)| {
                    let name = &parameter.name;
                    let function = if parameter.receiver { "receiver" } else { "argument" };
                    let function = Ident::new(function, at(parameter.span));
                    let conditions = &parameter.conditions;
                    let variant = variant(private, args, &quote!(&#name));
                    quote_spanned!(at(parameter.span)=>
                        #conditions
                        #private::#function(&mut #args, &#name);
                        #conditions
                        #variant
                    )
                })
                .collect(),
        }
    }

    fn lifetime(&self, rule: &Ident) -> TokenStream {
        let private = &self.private;
        match &self.plan.ttl {
            Ttl::Ms(ms) if ms % 1_000 == 0 => {
                let seconds = ms / 1_000;
                quote!(#private::TtlRule::seconds(#seconds))
            }
            Ttl::Ms(ms) => {
                quote!(#private::TtlRule::given(::core::time::Duration::from_millis(#ms)))
            }
            Ttl::Expression(expr) => {
                quote_spanned!(at(expr.span())=> #private::TtlRule::given(#expr))
            }
            Ttl::OfValue(closure) => {
                quote_spanned!(at(closure.span())=> #rule.ttl_of(#closure))
            }
        }
    }
}

/// Adds the enum variant of the last argument to the key. Three borrows: the first trait that applies is chosen.
fn variant(private: &TokenStream, args: &Ident, value: &TokenStream) -> TokenStream {
    quote!(#args.variant((&&&#private::Argument(#value)).__zerocache_variant());)
}

/// Gives a parameter a plain name in the signature, and its pattern back in the body.
///
/// The body takes every parameter as a whole, even if it uses one field or nothing of it, so that all live as long as
/// in the original function.
fn bind(position: usize, input: &mut FnArg, bindings: &mut TokenStream) -> Parameter {
    match input {
        FnArg::Receiver(receiver) => {
            let name = receiver.self_token.to_token_stream();
            bindings.extend(quote!(let _ = &#name;));
            let conditions = TokenStream::new();
            Parameter { name, span: receiver.span(), receiver: true, conditions }
        }
        FnArg::Typed(typed) => {
            let span = typed.ty.span();
            let conditions = typed.attrs.iter().filter(|attr| attr.path().is_ident("cfg"));
            let conditions = quote!(#(#conditions)*);
            let name = match &mut *typed.pat {
                Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => {
                    let ident = pat.ident.clone();
                    bindings.extend(quote!(#conditions let _ = &#ident;));
                    ident
                }
                pattern => {
                    let name = local(&format!("parameter_{position}"));
                    bindings.extend(quote!(#conditions let #pattern = #name;));
                    *pattern = parse_quote!(#name);
                    name
                }
            };
            Parameter { name: name.into_token_stream(), span, receiver: false, conditions }
        }
    }
}
