use zerocache_client::zerocache;

#[zerocache("london", 42, stale(while = "0ms"))]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
