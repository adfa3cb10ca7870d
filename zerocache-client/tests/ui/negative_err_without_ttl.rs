use zerocache_client::zerocache;

#[zerocache("london", 42, negative(err = |_: &String| true))]
async fn f(n: u64) -> Result<u64, String> {
    Ok(n)
}

fn main() {}
