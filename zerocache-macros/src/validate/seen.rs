//! What can be seen of a returned type without knowing what its names stand for.
//!
//! Only types that are certainly something else are refused here; an alias may be anything, and the
//! compiler judges it.

use syn::visit::Visit;
use syn::{GenericArgument, Path, PathArguments, PathSegment, Type};

use crate::ast;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Certainly not.
    No,
    /// Perhaps.
    Maybe,
}

/// Types of the standard library under their own names.
const OTHERS: &[&str] = &[
    "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16", "u32",
    "u64", "u128", "usize", "String", "Vec", "Box", "Arc", "Rc", "HashMap", "HashSet", "BTreeMap",
    "BTreeSet", "Duration",
];

/// Whether a type may be a `Result`.
pub(super) fn result(ty: &Type) -> Seen {
    match name(ty) {
        Some(segment) if segment.ident == "Option" || is_other(segment) => Seen::No,
        Some(_) => Seen::Maybe,
        None => structure(ty),
    }
}

/// Whether a type may be an `Option`, or a `Result` of one.
pub(super) fn option(ty: &Type) -> Seen {
    match name(ty) {
        Some(segment) if is_other(segment) => Seen::No,
        Some(segment) if segment.ident == "Result" => {
            first_argument(segment).map_or(Seen::Maybe, |value| match name(value) {
                Some(inner) if inner.ident == "Result" || is_other(inner) => Seen::No,
                Some(_) => Seen::Maybe,
                None => structure(value),
            })
        }
        Some(_) => Seen::Maybe,
        None => structure(ty),
    }
}

/// Whether a type has `serde_json::Value` in it, under this name.
pub(super) fn has_json(ty: &Type) -> bool {
    struct Find(bool);
    impl<'ast> Visit<'ast> for Find {
        fn visit_path(&mut self, path: &'ast Path) {
            let mut names = path.segments.iter().rev();
            let last = names.next().is_some_and(|segment| segment.ident == "Value");
            self.0 |= last && names.next().is_some_and(|segment| segment.ident == "serde_json");
            syn::visit::visit_path(self, path);
        }
    }
    let mut find = Find(false);
    find.visit_type(ty);
    find.0
}

fn is_other(segment: &PathSegment) -> bool {
    OTHERS.iter().any(|other| segment.ident == other)
}

/// A macro may give any type; tuples, arrays and the like are what they look like.
fn structure(ty: &Type) -> Seen {
    match ast::ungroup(ty) {
        Type::Tuple(_) | Type::Array(_) | Type::Slice(_) | Type::Ptr(_) => Seen::No,
        _ => Seen::Maybe,
    }
}

/// The last name of a path that is no `<T as Trait>::Name`.
fn name(ty: &Type) -> Option<&PathSegment> {
    match ast::ungroup(ty) {
        Type::Path(path) if path.qself.is_none() => path.path.segments.last(),
        _ => None,
    }
}

fn first_argument(segment: &PathSegment) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    #[test]
    fn only_what_is_certain_is_refused() {
        let cases: [(Type, Seen, Seen); 9] = [
            (parse_quote!(Result<u64, E>), Seen::Maybe, Seen::No),
            (parse_quote!(Result<Option<u64>, E>), Seen::Maybe, Seen::Maybe),
            (parse_quote!(io::Result<Vec<u8>>), Seen::Maybe, Seen::No),
            (parse_quote!(Option<u64>), Seen::No, Seen::Maybe),
            (parse_quote!(Alias), Seen::Maybe, Seen::Maybe),
            (parse_quote!(Self::Output), Seen::Maybe, Seen::Maybe),
            (parse_quote!(<T as Get>::String), Seen::Maybe, Seen::Maybe),
            (parse_quote!((u64, u8)), Seen::No, Seen::No),
            (parse_quote!(std::string::String), Seen::No, Seen::No),
        ];
        for (ty, is_result, is_option) in cases {
            let text = quote::quote!(#ty).to_string();
            assert_eq!((result(&ty), option(&ty)), (is_result, is_option), "{text}");
        }
    }
}
