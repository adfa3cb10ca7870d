//! Functions that cannot be memoized, and attributes that cannot stand below ours.

use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::{
    Attribute, Error, GenericArgument, Meta, PathArguments, Result, ReturnType, Token, Type,
    TypeImplTrait, TypeParamBound,
};

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

/// Attributes of the language that are about the code they stand on, wherever they are written: above
/// #[zerocache] too it is handed them, and the generated function is other code.
const OF_CODE: &[&str] = &[
    "coverage",
    "export_name",
    "instruction_set",
    "link_section",
    "naked",
    "no_mangle",
    "optimize",
    "target_feature",
    "track_caller",
    "unsafe",
];

/// Standard types that own what they hold, if it is owned.
const HOLDERS: &[&str] = &[
    "Arc",
    "BTreeMap",
    "BTreeSet",
    "BinaryHeap",
    "Box",
    "HashMap",
    "HashSet",
    "Option",
    "Rc",
    "Result",
    "Vec",
    "VecDeque",
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
        } else if OF_CODE.iter().any(|name| attr.path().is_ident(name)) {
            let message = format!(
                "`{}` would be about the generated function, and not about what is written here: \
                 leave it out, or put it on a function that this one calls",
                path_text(attr)
            );
            errors.add(Error::new_spanned(attr, message));
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
    if let Some(output) = find_reference(output) {
        let message = "a memoized function returns an owned value: what comes from the cache \
                       cannot be borrowed";
        errors.add(Error::new_spanned(output, message));
    }
    if let (Some(found), false) = (find_impl(&sig.output), matches!(function.kind, Kind::Boxed)) {
        let message = if is_future(found) {
            "write `async fn`: a memoized function names the type that its future gives"
        } else {
            "a memoized function names the type that it returns: a value from the cache must be \
             decoded as that type"
        };
        errors.add(Error::new(found.span(), message));
    }
}

/// A reference in what a function returns, where it is certain that it is a part of the value.
fn find_reference(output: &Type) -> Option<&Type> {
    match ast::ungroup(output) {
        reference @ Type::Reference(_) => Some(reference),
        Type::Tuple(tuple) => tuple.elems.iter().find_map(find_reference),
        Type::Array(array) => find_reference(&array.elem),
        Type::Path(path) if path.qself.is_none() => {
            let segment = path.path.segments.last()?;
            let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
                return None;
            };
            // The error of a `Result` is not cached.
            let parts = if segment.ident == "Result" { 1 } else { usize::MAX };
            let types = arguments.args.iter().filter_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            });
            let holds = HOLDERS.iter().any(|holder| segment.ident == holder);
            types.take(parts).find_map(find_reference).filter(|_| holds)
        }
        _ => None,
    }
}

fn is_future(found: &TypeImplTrait) -> bool {
    found.bounds.iter().any(|bound| match bound {
        TypeParamBound::Trait(bound) => {
            bound.path.segments.last().is_some_and(|segment| segment.ident == "Future")
        }
        _ => false,
    })
}

fn find_impl(output: &ReturnType) -> Option<&TypeImplTrait> {
    struct Find<'ast>(Option<&'ast TypeImplTrait>);
    impl<'ast> Visit<'ast> for Find<'ast> {
        fn visit_type_impl_trait(&mut self, node: &'ast TypeImplTrait) {
            self.0 = Some(node);
        }
    }
    let mut find = Find(None);
    find.visit_return_type(output);
    find.0
}
