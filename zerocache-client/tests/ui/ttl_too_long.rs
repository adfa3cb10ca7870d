use zerocache_client::zerocache;

#[zerocache("london", 100_000_000)]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
