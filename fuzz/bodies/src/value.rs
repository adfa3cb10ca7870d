//! Typed values as a client reads them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::NonZeroU16,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zerocache_client::codec;

/// A type such as users store.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Order {
    number: u64,
    customer: String,
    lines: Vec<(u32, Option<String>)>,
    notes: BTreeMap<String, Vec<u8>>,
    state: State,
    parent: Option<Box<Order>>,
}

/// A type with variants of each kind.
#[derive(Debug, Default, Serialize, Deserialize)]
enum State {
    #[default]
    Open,
    Paid(i128),
    Sent {
        at: Duration,
        weights: [f32; 3],
    },
    Refused(char, bool),
}

/// Reads the input as it is, and as the payload of the type that its first byte chooses.
pub fn value(data: &[u8]) {
    let _refused_mostly = codec::decode::<Order>(data);
    let Some((choice, payload)) = data.split_first() else { return };
    match choice % 10 {
        0 => read_as::<Order>(Order::default(), payload),
        1 => read_as::<String>(String::new(), payload),
        2 => read_as::<Vec<u8>>(Vec::new(), payload),
        3 => read_as::<Vec<State>>(Vec::new(), payload),
        4 => read_as::<BTreeMap<String, BTreeSet<i64>>>(BTreeMap::new(), payload),
        5 => read_as::<Option<(char, f64, u128)>>(None, payload),
        6 => read_as::<Duration>(Duration::ZERO, payload),
        7 => read_as::<SystemTime>(SystemTime::UNIX_EPOCH, payload),
        8 => read_as::<Vec<SocketAddr>>(Vec::new(), payload),
        _ => read_as::<Result<NonZeroU16, Box<str>>>(Ok(NonZeroU16::MIN), payload),
    }
}

/// Reads `payload` behind the header of `T`; what is read survives being written again.
fn read_as<T: Serialize + DeserializeOwned>(sample: T, payload: &[u8]) {
    /// The codec's tag and the shape of the type.
    const HEADER_BYTES: usize = 9;
    let header = codec::encode(&sample).expect("the sample can be written");
    let stored = [&header[..HEADER_BYTES], payload].concat();
    let Ok(value) = codec::decode::<T>(&stored) else { return };
    // As bytes: a value that is not a number is not equal to itself.
    let written = codec::encode(&value).expect("what was read can be written");
    let again = codec::decode::<T>(&written).expect("what was written can be read");
    assert_eq!(codec::encode(&again), Ok(written), "a value comes back changed");
}
