use zerocache_client::zerocache;

#[zerocache("london", 42, negative(none = 5, ttl = 5))]
async fn f(n: u64) -> Option<u64> {
    Some(n)
}

fn main() {}
