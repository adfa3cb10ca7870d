use zerocache_client::zerocache;

#[zerocache(ttl = 42, codec = "json")]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
