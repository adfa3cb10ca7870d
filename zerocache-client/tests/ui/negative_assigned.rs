use zerocache_client::zerocache;

#[zerocache("london", 42, negative = "5s")]
async fn f(n: u64) -> Option<u64> {
    Some(n)
}

fn main() {}
