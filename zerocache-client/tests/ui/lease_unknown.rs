use zerocache_client::zerocache;

#[zerocache("london", 42, lease(region, ttl = "3s"))]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
