use zerocache_client::zerocache;

#[zerocache("london", 42, negative(err = |_: &String| true, ttl = 5))]
async fn f(n: u64) -> Option<u64> {
    Some(n)
}

fn main() {}
