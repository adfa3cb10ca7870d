use zerocache_client::zerocache;

#[zerocache("london", ttl = std::env::consts::OS)]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
