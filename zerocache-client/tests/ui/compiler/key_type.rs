use zerocache_client::zerocache;

struct Opaque;

#[zerocache("london", 42, key = (n, Opaque))]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
