use zerocache_client::zerocache;

#[zerocache("london", 42, near(while = "10m"))]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
