use zerocache_client::zerocache;

#[zerocache("london", 42, jitter = std::time::Duration::from_secs(1))]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
