#![deny(unused_must_use)]

use zerocache_client::zerocache;

#[zerocache("london", 42)]
async fn f(n: u64) -> u64 {
    n
}

async fn forgets() {
    f(1);
}

fn main() {}
