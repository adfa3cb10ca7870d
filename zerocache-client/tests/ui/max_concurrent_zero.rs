use zerocache_client::zerocache;

#[zerocache("london", 42, max_concurrent = 0)]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
