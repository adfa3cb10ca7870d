use zerocache_client::zerocache;

#[zerocache("london", 42, cache_if = |a: &u64, b: &u64| a == b)]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
