//! Queries of the image service in `examples/images`.

use std::net::IpAddr;

use images::addresses::is_public;
use images::query::{Params, VariantRules};
use images::source::{Source, SourceRules};

/// Reads the parameters of an image, and the URL among them.
pub fn image_query(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };
    let Ok(params) = Params::parse(query) else { return };
    for webp in [false, true] {
        if let Ok(variant) = VariantRules::default().variant(&params, webp) {
            assert_eq!(variant.check(), Ok(()), "a variant out of range");
        }
    }
    let Some(Ok(source)) = params.get("url").map(Source::parse) else { return };
    let again = Source::parse(source.url().as_str());
    // Escaping can make a URL too long.
    assert!(again.is_err() || again.as_ref() == Ok(&source), "a URL that is read differently");
    if SourceRules::default().check(source.url()).is_ok() {
        let host = source.url().host_str().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        assert!(address.map_or(true, is_public), "an address inside is fetched: {host}");
        assert!(matches!(source.url().scheme(), "http" | "https"), "not HTTP");
    }
}
