use zerocache_client::zerocache;

#[zerocache("london", 42, stale(if_error = "1h"))]
async fn f(n: u64) -> Option<u64> {
    Some(n)
}

fn main() {}
