//! The path under which the expansion finds `zerocache_client`.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Ident, Path};

/// Returns the path of the client's hidden module: from `crate = …`, otherwise by the name of the dependency in the
/// caller's `Cargo.toml`, otherwise `::zerocache_client`.
pub(crate) fn private(explicit: Option<&Path>) -> TokenStream {
    if let Some(path) = explicit {
        return quote!(#path::__private);
    }
    let name = match crate_name("zerocache-client") {
        Ok(FoundCrate::Name(name)) => name,
        // The client itself, whose tests and documentation also know it as `::zerocache_client`.
        Ok(FoundCrate::Itself) | Err(_) => "zerocache_client".to_owned(),
    };
    let span = Span::call_site();
    let name = syn::parse_str::<Ident>(&name)
        .unwrap_or_else(|_| Ident::new("zerocache_client", Span::call_site()));
    quote_spanned!(span=> ::#name::__private)
}
