use zerocache_client::zerocache;

#[zerocache("london", 42, stale(while = "1m"), stale(if_error = "1h"))]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
