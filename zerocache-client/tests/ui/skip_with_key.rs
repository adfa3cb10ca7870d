use zerocache_client::zerocache;

#[zerocache("london", 42, key = n, skip(m))]
async fn f(n: u64, m: u64) -> u64 {
    n + m
}

fn main() {}
