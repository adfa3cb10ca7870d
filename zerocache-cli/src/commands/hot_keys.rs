//! The keys that nodes read most, of all nodes together.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::{Value as Json, json};

use super::keys::readable;
use crate::{
    context::Context,
    exit::{Exit, print_document},
    failure::Failure,
    print,
    survey::{self, Questions},
    table,
};

/// A key that is read often.
#[derive(Debug, Default)]
struct HotKey {
    key_bytes: u64,
    reads_per_s: f64,
    /// The nodes that read it often.
    nodes: u64,
    key: Option<String>,
    key_hex: Option<String>,
}

/// The keys that are read most, the first one first, with their hashes; and why some nodes said none.
#[derive(Debug, Default)]
pub(crate) struct HotKeys {
    keys: Vec<(String, HotKey)>,
    failures: Vec<Failure>,
}

/// Prints the `count` keys that are read most.
pub(crate) fn print_hottest(context: &Context, count: usize) -> Result<Exit, Failure> {
    context.runtime.block_on(async {
        let survey = survey::needed(context).await?;
        let nodes = survey.nodes.iter().map(|node| node.address);
        let mut hot = HotKeys::ask(context, nodes, count).await;
        if hot.failures.len() == survey.nodes.len() {
            return Err(hot.failures.swap_remove(0));
        }
        if context.global.json {
            return print_document(json!({ "keys": hot.to_json() }), Exit::DONE);
        }
        print(&hot.to_text())?;
        Ok(Exit::DONE)
    })
}

impl HotKeys {
    /// Asks these nodes for their `count` hottest keys, and keeps as many of all.
    pub(crate) async fn ask(
        context: &Context,
        nodes: impl Iterator<Item = SocketAddr>,
        count: usize,
    ) -> Self {
        let mut questions = Questions::new();
        for to in nodes {
            questions.ask(context.document(to, format!("/v1/hot-keys?count={count}")));
        }
        let (mut keys, mut failures) = (BTreeMap::<String, HotKey>::new(), Vec::new());
        while let Some(answer) = questions.next().await {
            match answer {
                Ok(answer) => add(&mut keys, &answer),
                Err(failure) => failures.push(failure),
            }
        }
        failures.sort_by(|one, other| one.line().cmp(other.line()));
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort_by(|a, b| b.1.reads_per_s.total_cmp(&a.1.reads_per_s));
        keys.truncate(count);
        Self { keys, failures }
    }

    /// Returns a table, and what nodes said instead.
    pub(crate) fn to_text(&self) -> String {
        let row = |(hash, key): &(String, HotKey)| {
            let name = key.key.as_deref().unwrap_or_default();
            vec![
                format!("{:.1}", key.reads_per_s),
                key.nodes.to_string(),
                key.key_bytes.to_string(),
                hash.clone(),
                readable(name.as_bytes()),
            ]
        };
        let rows: Vec<_> = self.keys.iter().map(row).collect();
        let mut text = table::lines(&["READS/S", "NODES", "KEY-BYTES", "HASH", "KEY"], &rows);
        for failure in &self.failures {
            text += &format!("{}\n", failure.line());
        }
        text
    }

    pub(crate) fn to_json(&self) -> Json {
        let key = |(hash, key): &(String, HotKey)| {
            json!({
                "hash": hash,
                "key_bytes": key.key_bytes,
                "reads_per_s": key.reads_per_s,
                "nodes": key.nodes,
                "key": key.key,
                "key_hex": key.key_hex,
            })
        };
        self.keys.iter().map(key).collect()
    }
}

/// Adds what a node said.
fn add(keys: &mut BTreeMap<String, HotKey>, answer: &Json) {
    for said in answer["keys"].as_array().into_iter().flatten() {
        let Some(hash) = said["hash"].as_str() else { continue };
        let key = keys.entry(hash.to_owned()).or_default();
        key.key_bytes = said["key_bytes"].as_u64().unwrap_or(0);
        key.reads_per_s += said["reads_per_s"].as_f64().unwrap_or(0.0);
        key.nodes += 1;
        for (known, field) in [(&mut key.key, "key"), (&mut key.key_hex, "key_hex")] {
            if let Some(text) = said[field].as_str() {
                known.get_or_insert_with(|| text.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_of_all_nodes_are_added() {
        let mut keys = BTreeMap::new();
        add(&mut keys, &json!({"keys": [{"hash": "0a", "key_bytes": 3, "reads_per_s": 2.5}]}));
        let named = json!({"hash": "0a", "key_bytes": 3, "reads_per_s": 1.0, "key": "a\u{1b}b"});
        add(&mut keys, &json!({"keys": [named, {"hash": "0b", "reads_per_s": 9.0}]}));
        add(&mut keys, &Json::Null);
        let all = HotKeys {
            keys: keys.into_iter().collect(),
            failures: vec![Failure::new("n: no".to_owned())],
        };
        let text = all.to_text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "READS/S  NODES  KEY-BYTES  HASH  KEY");
        assert_eq!(lines[1], "3.5      2      3          0a    a\\u{1b}b");
        assert_eq!(lines[3], "n: no");
        assert_eq!(all.to_json()[0]["key"], "a\u{1b}b");
    }
}
