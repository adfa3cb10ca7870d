use zerocache_client::zerocache;

#[zerocache("london", 42, lease(region, wait = 61))]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
