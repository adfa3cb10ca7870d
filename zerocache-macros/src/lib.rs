//! The `#[zerocache]` attribute.
//!
//! Use it as `zerocache_client::zerocache`. Its documentation is `attribute.md` here, and the guide
//! `docs/memoize.md`. The pipeline has one file per step:
//!
//! 1. `attr` parses the attribute's arguments,
//! 2. `ast` parses the function,
//! 3. `validate` turns both into a plan, or, with `check`, into spanned errors,
//! 4. `expand` writes the code.
//!
//! The expansion uses `zerocache_client::__private` and the standard library, nothing else. This
//! crate must stay on edition 2024: its edition decides which lifetimes the generated
//! `impl Future` captures, also for callers of older editions.

mod ast;
mod attr;
mod check;
mod expand;
mod lifetime;
mod path;
mod validate;

use proc_macro::TokenStream;

#[doc = include_str!("../attribute.md")]
#[proc_macro_attribute]
pub fn zerocache(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let original = proc_macro2::TokenStream::from(item.clone());
    match memoize(arguments.into(), item.into()) {
        Ok(tokens) => tokens.into(),
        Err(error) => {
            // The function stays as it is, so that its callers do not add errors of their own.
            let mut tokens = error.into_compile_error();
            tokens.extend(original);
            tokens.into()
        }
    }
}

fn memoize(
    arguments: proc_macro2::TokenStream,
    item: proc_macro2::TokenStream,
) -> syn::Result<proc_macro2::TokenStream> {
    let function: ast::Function = syn::parse2(item)?;
    let attr: attr::Attr = syn::parse2(arguments)?;
    let plan = validate::plan(attr, &function)?;
    Ok(expand::expand(&plan, &function))
}
