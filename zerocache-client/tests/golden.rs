//! Pins the keys that the attribute gives functions. A line that changes with a new compiler is to
//! be brought back in `normalise`; one that changes with our code needs a new scheme.

mod support;

use bytes::Bytes;
use serde::Serialize;
use support::client;
use zerocache_client::zerocache;

#[zerocache(client(), 60)]
async fn free(id: u64, name: &str) -> u64 {
    id + name.len() as u64
}

#[zerocache(client(), 60, version = 1)]
async fn versioned(id: u64) -> u64 {
    id
}

#[zerocache(client(), 60, name = "shop::named")]
async fn named(id: u64) -> u64 {
    id
}

#[zerocache(client(), 60, call = sync_call)]
fn sync(id: u64) -> u64 {
    id
}

#[zerocache(client(), 60)]
async fn generic<T, const N: usize>(items: [T; N], other: impl Serialize) -> usize
where
    [T; N]: Serialize,
{
    let _ = (items, other);
    N
}

#[derive(Serialize)]
struct Shop<T>(T);

impl<T: Serialize> Shop<T> {
    #[zerocache(client(), 60)]
    async fn method(&self, id: u64) -> u64 {
        id
    }
}

trait Find: Serialize {
    #[zerocache(client(), 60)]
    fn find(&self, id: u64) -> u64 {
        id
    }
    async fn own(&self, id: u64) -> u64;
}

impl<T: Serialize> Find for Shop<T> {
    #[zerocache(client(), 60)]
    async fn own(&self, id: u64) -> u64 {
        id
    }
}

fn hex(key: Option<Bytes>) -> String {
    let key = key.expect("the call has a key");
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn keys_of_functions() {
    let shop = Shop(Some(1_u8));
    let found = [
        hex(free(1, "a").key()),
        hex(versioned(1).key()),
        hex(named(1).key()),
        hex(sync_call(1).key()),
        hex(generic([1_u8], String::new()).key()),
        hex(shop.method(1).key()),
        hex(shop.own(1).key()),
    ];
    assert_eq!(
        found,
        [
            "010048eff14f932cb661123451d9aa0558600b0000000000000001100161",
            "01006da08bd6ca38ff7de11847d10771a8f50b0000000000000001",
            "0100101350321e70cb11ea693ae0b4bf9b1e0b0000000000000001",
            "01007d4a4c689a7f3321a513bfbce2596ccb0b0000000000000001",
            "0100e94d06be932943d22573244b7266f8c01b0801001000",
            "01003a748a45883e86af85f8fdae50041780170453686f701308010b0000000000000001",
            "010046fab26f57f74b438dcd37acbecdde77170453686f701308010b0000000000000001",
        ]
    );
    assert_eq!((sync(1), shop.find(1)), (1, 1));
}
