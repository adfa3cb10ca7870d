//! The path under which the expansion finds `zerocache_client`.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Ident, Path};

/// Path to the client's hidden module: from `crate = …`, else from the name under which the
/// caller's `Cargo.toml` has the dependency, else `::zerocache_client`.
pub(crate) fn private(explicit: Option<&Path>) -> TokenStream {
    if let Some(path) = explicit {
        return quote!(#path::__private);
    }
    let name = match crate_name("zerocache-client") {
        Ok(FoundCrate::Name(name)) => name,
        // The client itself: its tests and documentation see it as `::zerocache_client` too.
        Ok(FoundCrate::Itself) | Err(_) => "zerocache_client".to_owned(),
    };
    let span = Span::call_site();
    let name = syn::parse_str::<Ident>(&name)
        .unwrap_or_else(|_| Ident::new("zerocache_client", Span::call_site()));
    quote_spanned!(span=> ::#name::__private)
}
