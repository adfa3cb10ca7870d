//! Functions that cannot be memoized, and attributes that cannot stand below ours.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::{Attribute, Error, Meta, Result, ReturnType, Token, Type, TypeImplTrait};

use crate::ast::{self, Function, Kind};

/// Attributes of the language that keep their meaning on the generated function.
const BUILT_IN: &[&str] = &[
    "allow",
    "cfg",
    "cold",
    "deny",
    "deprecated",
    "doc",
    "expect",
    "forbid",
    "inline",
    "must_use",
    "warn",
];

/// Namespaces of tools, whose attributes the compiler does not expand.
const TOOLS: &[&str] = &["clippy", "diagnostic", "miri", "rust_analyzer", "rustdoc", "rustfmt"];

/// All errors of one function, reported together.
pub(crate) struct Errors(pub(crate) Option<Error>);

impl Errors {
    pub(crate) fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }

    pub(crate) fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }
}

pub(crate) fn check_attributes(function: &Function, errors: &mut Errors) {
    for attr in &function.attrs {
        if attr.path().segments.last().is_some_and(|s| s.ident == "zerocache") {
            errors.add(Error::new_spanned(attr, "#[zerocache] is given twice"));
        } else if !keeps_meaning(&attr.meta) {
            let message = format!(
                "`{}` stands below #[zerocache] and would see the generated function; \
                 move it above #[zerocache]",
                path_text(attr)
            );
            errors.add(Error::new_spanned(attr, message));
        }
    }
}

fn path_text(attr: &Attribute) -> String {
    let names: Vec<_> = attr.path().segments.iter().map(|s| s.ident.to_string()).collect();
    names.join("::")
}

fn keeps_meaning(meta: &Meta) -> bool {
    let Some(first) = meta.path().segments.first() else {
        return false;
    };
    if meta.path().segments.len() > 1 {
        return TOOLS.iter().any(|tool| first.ident == tool);
    }
    if first.ident == "cfg_attr" {
        let Meta::List(list) = meta else { return false };
        let parser = syn::punctuated::Punctuated::<Meta, Token![,]>::parse_terminated;
        return list
            .parse_args_with(parser)
            .is_ok_and(|metas| metas.iter().skip(1).all(keeps_meaning));
    }
    BUILT_IN.iter().any(|name| first.ident == name)
}

pub(crate) fn check_signature(function: &Function, errors: &mut Errors) {
    let sig = &function.sig;
    if let Some(token) = &sig.constness {
        errors.add(Error::new(token.span, "a const function cannot be memoized"));
    }
    if let syn::Safety::Unsafe(token) = &sig.safety {
        let message = "an unsafe function cannot be memoized: wrap it in a safe one";
        errors.add(Error::new(token.span, message));
    }
    if let Some(abi) = &sig.abi {
        errors.add(Error::new_spanned(abi, "a function with a foreign ABI cannot be memoized"));
    }
    if let Some(variadic) = &sig.variadic {
        errors.add(Error::new_spanned(variadic, "a variadic function cannot be memoized"));
    }
    let Some(output) = function.output() else {
        let message = "this function returns nothing, so there is nothing to memoize";
        errors.add(Error::new_spanned(&sig.ident, message));
        return;
    };
    let output = ast::ungroup(output);
    if matches!(output, Type::Tuple(tuple) if tuple.elems.is_empty()) {
        let message = "this function returns nothing, so there is nothing to memoize";
        errors.add(Error::new_spanned(output, message));
    }
    if matches!(output, Type::Never(_)) {
        errors.add(Error::new_spanned(output, "a function that never returns has no value"));
    }
    if let Type::Reference(_) = output {
        let message = "a memoized function returns an owned value: what comes from the cache \
                       cannot be borrowed";
        errors.add(Error::new_spanned(output, message));
    }
    if let (Some(found), false) = (find_impl(&sig.output), matches!(function.kind, Kind::Boxed)) {
        let message = "a memoized function names the type that it returns: a value from the \
                       cache must be decoded as that type";
        errors.add(Error::new(found, message));
    }
}

fn find_impl(output: &ReturnType) -> Option<Span> {
    struct Find(Option<Span>);
    impl<'ast> Visit<'ast> for Find {
        fn visit_type_impl_trait(&mut self, node: &'ast TypeImplTrait) {
            self.0 = Some(node.span());
        }
    }
    let mut find = Find(None);
    find.visit_return_type(output);
    find.0
}
