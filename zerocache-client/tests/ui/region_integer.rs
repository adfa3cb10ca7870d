use zerocache_client::zerocache;

#[zerocache(42)]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
