//! The options of a call as code: one builder call for each option that is given.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Expr, Ident};

use super::{Expansion, at};
use crate::validate::{Lease, Near, Options, Tags, Time};

impl Expansion<'_> {
    /// Returns the maximum age of a function that uses the near cache.
    pub(super) fn near(&self) -> Option<TokenStream> {
        let Near { age, .. } = self.plan.options.near.as_ref()?;
        Some(self.duration(age.as_ref()))
    }

    /// Returns `Options::new()` with the attribute's options. `rule` separates values and errors of the returned
    /// type; `near` is the maximum age, if there is one.
    pub(super) fn options(&self, rule: &Ident, near: &Ident) -> TokenStream {
        let private = &self.private;
        let Options {
            near: is_near,
            lease,
            stale_while,
            stale_if_error,
            background,
            soft_timeout,
            detached: _,
            max_concurrent,
            ahead,
            tti,
            jitter,
            negative_none,
            negative_err,
            tags,
            cache_if,
            ack,
            codec,
        } = &self.plan.options;
        let mut code = quote!(#private::Options::new());
        if is_near.is_some() {
            code.extend(quote!(.near(#near)));
        }
        if let Some(lease) = lease {
            code.extend(self.lease(lease));
        }
        for (method, time) in [
            ("near_outage", is_near.as_ref().and_then(|near| near.outage.as_ref())),
            ("stale_while", stale_while.as_ref()),
            ("stale_if_error", stale_if_error.as_ref()),
            ("soft_timeout", soft_timeout.as_ref()),
            ("refresh_ahead", ahead.as_ref()),
            ("tti", tti.as_ref()),
            ("negative_none", negative_none.as_ref()),
        ] {
            let Some(time) = time else { continue };
            let span = at(time.span());
            let method = Ident::new(method, span);
            let time = lifetime(time);
            code.extend(quote_spanned!(span=> .#method(#time)));
        }
        code.extend(background.map(|_| quote!(.background())));
        if let Some(runs) = max_concurrent {
            code.extend(quote_spanned!(at(runs.span())=> .max_concurrent(#runs)));
        }
        if let Some(percent) = jitter {
            code.extend(quote_spanned!(at(percent.span())=> .jitter(#percent)));
        }
        if let Some((err, ttl)) = negative_err {
            let (span, ttl) = (at(err.span()), lifetime(ttl));
            let rule = Ident::new(&rule.to_string(), span);
            code.extend(quote_spanned!(span=>
                .negative_err(#rule.negative_err(#err, #ttl, #rule.error_equality()))
            ));
        }
        if let Some(tags) = tags {
            code.extend(self.tags(tags));
        }
        if let Some(predicate) = cache_if {
            let span = at(predicate.span());
            let rule = Ident::new(&rule.to_string(), span);
            code.extend(quote_spanned!(span=> .cache_if(#rule.cache_if(#predicate))));
        }
        if let Some(ack) = ack {
            let who = variant(ack);
            code.extend(quote!(.ack(#private::Ack::#who)));
        }
        code.extend(codec.as_ref().map(|codec| self.codec(codec)));
        code
    }

    fn codec(&self, codec: &Ident) -> TokenStream {
        let (private, span) = (&self.private, at(codec.span()));
        let name = Ident::new(codec_variant(codec), span);
        quote_spanned!(span=> .codec(#private::Codec::#name))
    }

    fn lease(&self, lease: &Lease) -> TokenStream {
        let private = &self.private;
        let scope = variant(&lease.scope);
        let (life, wait) = (self.duration(lease.life.as_ref()), self.duration(lease.wait.as_ref()));
        quote!(.lease(#private::LeaseScope::#scope, #life, #wait))
    }

    /// Returns an `Option<Duration>`.
    fn duration(&self, time: Option<&Time>) -> TokenStream {
        let private = &self.private;
        match time {
            None => quote!(::core::option::Option::None),
            Some(time @ Time::Ms { .. }) => {
                let time = lifetime(time);
                quote!(::core::option::Option::Some(#time))
            }
            Some(Time::Expression(expr)) => quote_spanned!(at(expr.span())=>
                ::core::option::Option::Some(#private::duration(#expr))
            ),
        }
    }

    fn tags(&self, tags: &Tags) -> TokenStream {
        let private = &self.private;
        match tags {
            Tags::List(literals, expressions) => {
                let names = expressions
                    .iter()
                    .map(|name: &Expr| quote_spanned!(at(name.span())=> #private::tag(&(#name))));
                let fixed = (!literals.is_empty()).then(|| quote!(.fixed_tags(&[#(#literals),*])));
                let own = (!expressions.is_empty()).then(|| quote!(.tags([#(#names),*])));
                quote!(#fixed #own)
            }
            Tags::Expression(list) => quote_spanned!(at(list.span())=> .tags(#list)),
        }
    }
}

/// Returns an expression that implements `Lifetime`.
fn lifetime(time: &Time) -> TokenStream {
    match time {
        Time::Ms { ms, .. } => quote!(::core::time::Duration::from_millis(#ms)),
        Time::Expression(expr) => quote!(#expr),
    }
}

/// Returns the name of a codec's variant.
fn codec_variant(word: &Ident) -> &'static str {
    match word.to_string().as_str() {
        "bincode" => "Bincode",
        "messagepack" => "MessagePack",
        _ => "Auto",
    }
}

/// Converts `region` to `Region`.
fn variant(word: &Ident) -> Ident {
    let name = match word.to_string().as_str() {
        "local" => "Local",
        "region" => "Region",
        _ => "All",
    };
    Ident::new(name, Span::mixed_site())
}
