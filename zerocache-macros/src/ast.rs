//! The annotated function.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{
    Attribute, Error, GenericArgument, Ident, PathArguments, PathSegment, Result, ReturnType,
    Signature, Token, Type, TypeParamBound, Visibility, braced,
};

/// A function item, a method or an associated function, with its body as plain tokens.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    pub(crate) body: TokenStream,
    pub(crate) kind: Kind,
}

/// The kind of function.
pub(crate) enum Kind {
    Sync,
    Async,
    /// Returns a boxed future, as `#[async_trait]` makes of an `async fn`.
    Boxed,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut attrs = input.call(Attribute::parse_outer)?;
        let vis: Visibility = input.parse()?;
        if !starts_function(input) {
            return Err(input.error("#[zerocache] goes on a function or a method"));
        }
        let sig: Signature = input.parse()?;
        if input.peek(Token![;]) {
            let message = "#[zerocache] needs a body: put it on the implementation of the method";
            return Err(Error::new_spanned(&sig, message));
        }
        let content;
        braced!(content in input);
        for mut attr in content.call(Attribute::parse_inner)? {
            attr.style = syn::AttrStyle::Outer;
            attrs.push(attr);
        }
        let body = content.parse()?;
        let kind = match (&sig.asyncness, boxed_output(&sig.output)) {
            (Some(_), _) => Kind::Async,
            (None, Some(_)) => Kind::Boxed,
            (None, None) => Kind::Sync,
        };
        Ok(Function { attrs, vis, sig, body, kind })
    }
}

impl Function {
    /// Returns the type of the value of a call.
    pub(crate) fn output(&self) -> Option<&Type> {
        match (&self.kind, &self.sig.output) {
            (Kind::Boxed, output) => boxed_output(output),
            (_, ReturnType::Type(_, ty)) => Some(ty),
            (_, ReturnType::Default) => None,
        }
    }

    /// Returns a hash of the function's tokens.
    pub(crate) fn fingerprint(&self) -> u64 {
        let text = format!("{} {}", self.sig.to_token_stream(), self.body);
        // FNV-1a: specified, so that it is the same in every compilation.
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

fn starts_function(input: ParseStream<'_>) -> bool {
    let fork = input.fork();
    while fork.peek(Token![const])
        || fork.peek(Token![async])
        || fork.peek(Token![unsafe])
        || fork.peek(Token![extern])
        || fork.peek(syn::LitStr)
    {
        if fork.parse::<proc_macro2::TokenTree>().is_err() {
            return false;
        }
    }
    fork.peek(Token![fn]) && fork.peek2(Ident::peek_any)
}

/// Returns the `T` of `Pin<Box<dyn Future<Output = T> …>>` and of `BoxFuture<'_, T>`.
fn boxed_output(output: &ReturnType) -> Option<&Type> {
    let ReturnType::Type(_, ty) = output else {
        return None;
    };
    let outer = last_segment(ty)?;
    if outer.ident == "BoxFuture" || outer.ident == "LocalBoxFuture" {
        return type_argument(outer);
    }
    if outer.ident != "Pin" {
        return None;
    }
    let inner = last_segment(type_argument(outer)?)?;
    if inner.ident != "Box" {
        return None;
    }
    let Type::TraitObject(object) = ungroup(type_argument(inner)?) else {
        return None;
    };
    object.bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else {
            return None;
        };
        let segment = bound.path.segments.last().filter(|s| s.ident == "Future")?;
        let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
            return None;
        };
        arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::AssocType(assoc) if assoc.ident == "Output" => Some(&assoc.ty),
            _ => None,
        })
    })
}

/// Returns the content of the invisible brackets around a fragment of `macro_rules!`.
pub(crate) fn ungroup(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => ungroup(&group.elem),
        other => other,
    }
}

fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match ungroup(ty) {
        Type::Path(path) => path.path.segments.last(),
        _ => None,
    }
}

fn type_argument(segment: &PathSegment) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}
