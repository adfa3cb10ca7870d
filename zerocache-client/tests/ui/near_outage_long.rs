use zerocache_client::zerocache;

#[zerocache("london", 42, near(outage = "2d"))]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
