use zerocache_client::zerocache;

#[zerocache("london", 42, negative(none = 5))]
async fn f(n: u64) -> Result<u64, String> {
    Ok(n)
}

fn main() {}
