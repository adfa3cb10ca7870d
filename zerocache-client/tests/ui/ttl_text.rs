use zerocache_client::zerocache;

#[zerocache("london", "5 minutes")]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
