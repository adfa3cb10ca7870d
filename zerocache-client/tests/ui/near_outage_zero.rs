use zerocache_client::zerocache;

#[zerocache("london", 42, near(age = "1s", outage = 0))]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
