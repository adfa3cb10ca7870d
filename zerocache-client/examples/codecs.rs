//! Which values the codecs read back, and what they cost; JSON for comparison, as `serde_json` writes it.
//!
//! `cargo run --release -p zerocache-client --example codecs`

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zerocache_client::codec::{Codec, decode, encode_as, encode_compared};
use zerocache_net::clock;

/// Runs of one measurement, of which the fastest counts, and calls in each.
const RUNS: u32 = 9;
const CALLS: u32 = 400;

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Product {
    id: u64,
    name: String,
    price_cents: u64,
    currency: String,
    labels: Vec<String>,
    stock: u32,
    rating: f64,
    active: bool,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Flattened {
    id: u64,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Fraction(f64),
    Address(IpAddr),
    Numbers(BTreeMap<u64, u8>),
    Text(String),
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    Created { id: u64, by: String },
    Deleted { id: u64 },
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Sparse {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    id: u64,
}

fn json_of<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    serde_json::to_vec(value).ok()
}

fn survives<T: Serialize + DeserializeOwned + PartialEq>(value: &T, codec: Codec) -> bool {
    encode_as(value, codec).is_ok_and(|bytes| decode::<T>(&bytes).is_ok_and(|back| back == *value))
}

fn kind<T: Serialize + DeserializeOwned + PartialEq>(name: &str, value: &T) {
    let json = json_of(value).and_then(|bytes| serde_json::from_slice::<T>(&bytes).ok());
    let word = |is_read_back| if is_read_back { "yes" } else { "no" };
    println!(
        "| {name} | {} | {} | {} |",
        word(survives(value, Codec::Bincode)),
        word(survives(value, Codec::MessagePack)),
        word(json.is_some_and(|back| back == *value)),
    );
}

/// Returns the microseconds of a call.
fn time<R>(call: impl Fn() -> R) -> f64 {
    let run = |_| {
        let started = clock::elapsed();
        for _ in 0..CALLS {
            black_box(call());
        }
        (clock::elapsed() - started).as_secs_f64() * 1e6 / f64::from(CALLS)
    };
    (0..RUNS).map(run).fold(f64::MAX, f64::min)
}

fn cost<T: Serialize + DeserializeOwned + PartialEq>(name: &str, value: &T) {
    for (codec, as_text) in [(Codec::Bincode, "bincode"), (Codec::MessagePack, "MessagePack")] {
        let Ok(bytes) = encode_as(value, codec) else { continue };
        let write = time(|| encode_as(value, codec).is_ok());
        let compared = time(|| encode_compared(value, codec).is_ok());
        let read = time(|| decode::<T>(&bytes).is_ok());
        let length = bytes.len();
        println!("| {name} | {as_text} | {length} | {write:.1} | {compared:.1} | {read:.1} |");
    }
    let Some(bytes) = json_of(value) else { return };
    let read = || serde_json::from_slice::<T>(&bytes).ok();
    // As the codecs do: written, read back, and written again to compare.
    let write = time(|| (json_of(value), read().as_ref().and_then(json_of::<T>)));
    println!("| {name} | JSON | {} | {write:.1} | | {:.1} |", bytes.len(), time(read));
}

fn main() {
    let rest = BTreeMap::from([("a".to_owned(), json!([1, null])), ("b".to_owned(), json!(0.5))]);
    let untagged = || vec![Untagged::Number(-1), Untagged::Fraction(2.0)];
    let tagged = |id| Tagged::Created { id, by: "somebody".to_owned() };
    println!("| value | bincode | MessagePack | JSON |\n|---|---|---|---|");
    kind("`serde_json::Value`", &json!({ "a": [1, -1, 0.1, null], "b": u64::MAX }));
    kind("`flatten`", &Flattened { id: 1, rest });
    kind("`untagged`", &untagged());
    kind("internally tagged", &[tagged(1), Tagged::Deleted { id: 2 }]);
    kind("`skip_serializing_if`", &Sparse { note: None, id: 1 });
    kind("`untagged`, an IP address", &Untagged::Address([127, 0, 0, 1].into()));
    kind("`untagged`, keys that are numbers", &Untagged::Numbers(BTreeMap::from([(1, 2)])));
    kind("an infinite `f64`", &f64::INFINITY);
    kind("`Some(None)`", &Some(None::<u8>));

    let product = Product {
        id: 123_456,
        name: "A name of some length".to_owned(),
        price_cents: 129_900,
        currency: "EUR".to_owned(),
        labels: ["new", "garden", "sale"].map(str::to_owned).into(),
        stock: 17,
        rating: 4.37,
        active: true,
    };
    println!("\n| value | codec | bytes | write, µs | and compared, µs | read, µs |");
    println!("|---|---|---|---|---|---|");
    cost("a struct of 8 fields", &product);
    cost("100 of them", &vec![product.clone(); 100]);
    cost("100 of them as `serde_json::Value`", &json!(vec![product; 100]));
    cost("1,000 `f64`", &(0..1_000).map(|n| f64::from(n) / 7.0).collect::<Vec<_>>());
    cost("100 internally tagged", &(0..100).map(tagged).collect::<Vec<_>>());
    cost("100 `untagged` texts", &vec![Untagged::Text("somebody".to_owned()); 100]);
}
