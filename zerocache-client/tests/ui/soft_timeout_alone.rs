use zerocache_client::zerocache;

#[zerocache("london", 42, soft_timeout = "200ms")]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
