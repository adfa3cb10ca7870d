use zerocache_client::zerocache;

#[zerocache("london", 1.5)]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
