use zerocache_client::zerocache;

#[zerocache]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
