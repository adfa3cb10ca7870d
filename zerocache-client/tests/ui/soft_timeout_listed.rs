use zerocache_client::zerocache;

#[zerocache("london", 42, stale(while = "1m"), soft_timeout(200))]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
