//! What a stranger, or a careless operator, hands to a node: access files, tokens, secrets.

use zerocache_core::access::{Denial, Role, Secret, StaticToken, Token, TokenHash};
use zerocache_server::access::AccessTable;

/// The cluster that the tokens of the corpus are for.
const CLUSTER: &str = "zerocache";

/// Reads an access file. An error is one line and repeats no token; who presents nothing is no node.
pub fn access_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<AccessTable>() {
        Ok(table) => {
            let role = table.anonymous().role();
            assert!(!matches!(role, Role::Node | Role::All), "strangers have the role {role}");
            let by_chance = table.client_of_token(&TokenHash::of(text));
            assert!(by_chance.is_none(), "a file is no token");
        }
        Err(error) => {
            let line = error.to_string();
            for begin in ["zct1_", "zc1_", "zcs1_"] {
                assert!(!line.contains(begin), "an error shows a token or a secret");
            }
        }
    }
}

/// Reads a token or a secret. What is accepted is exactly what was made: no other text stands for it, and
/// nothing grants membership.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(secret) = text.parse::<Secret>() {
        assert_eq!(secret.to_text(), text, "two texts stand for one secret");
    }
    if let Ok(token) = text.parse::<StaticToken>() {
        assert_eq!(token.as_text(), text, "two texts stand for one token");
    }
    let Ok(token) = text.parse::<Token>() else { return };
    let key = Secret::from_random([0; 32]).token_key();
    match token.verify(std::slice::from_ref(&key), CLUSTER, 0) {
        Ok(grant) => {
            let fields = token.fields();
            assert!(!matches!(grant.role(), Role::Node | Role::All), "a token grants membership");
            assert_eq!(grant.is_scoped(), !fields.prefixes.is_empty(), "prefixes were lost");
            assert_eq!(fields.sign(&key).as_deref(), Ok(text), "two texts stand for one token");
        }
        Err(denial) => assert_ne!(denial, Denial::Forbidden, "not what a token can be"),
    }
}
