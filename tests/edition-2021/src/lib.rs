//! The attribute, used from a crate of edition 2021 that renames its dependency.
//!
//! The edition of the macro's crate decides which lifetimes the returned future captures; were it
//! the caller's, the borrowed arguments here would not compile.

use cache::zerocache;

/// A service with borrowed state.
#[derive(serde::Serialize)]
pub struct Service<'a> {
    /// Its name.
    pub name: &'a str,
}

impl Service<'_> {
    /// Borrows `self` and an argument.
    #[zerocache("london", 42)]
    pub async fn greet(&self, other: &str) -> String {
        format!("{} greets {other}", self.name)
    }

    /// The same, sync.
    #[zerocache("london", 42, call = greet_sync_call)]
    pub fn greet_sync(&self, other: &str) -> String {
        format!("{} greets {other}", self.name)
    }
}

/// Names the crate by hand.
#[zerocache("london", 42, crate = ::cache)]
pub async fn explicit<'a>(text: &'a str, prefix: Option<&'a str>) -> Result<usize, String> {
    let prefix = prefix.ok_or("no prefix")?;
    Ok(text.len() + prefix.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps the attribute's client off the network: it has nowhere to look for nodes.
    fn off_the_network() {
        let client = cache::ZerocacheClient::builder("london").mdns(false).install();
        client.expect("the configuration is always the same");
    }

    #[test]
    fn sync_functions_work() {
        off_the_network();
        let name = String::from("a");
        let service = Service { name: &name };
        assert_eq!(service.greet_sync("b"), "a greets b");
        assert_eq!(service.greet_sync_call("b").wait(), "a greets b");
    }

    #[test]
    fn calls_borrow_their_arguments() {
        off_the_network();
        let name = String::from("a");
        let other = String::from("b");
        let service = Service { name: &name };
        let keys = [service.greet(&other).key(), service.greet("c").key()];
        assert!(keys.iter().all(Option::is_some));
        assert_ne!(keys[0], keys[1]);
        assert!(explicit("text", Some("p")).key().is_some());
    }
}
