use zerocache_client::zerocache;

#[zerocache("london", 42)]
async fn f(n: u64) -> Result<Vec<(u64, &'static str)>, &'static str> {
    Ok(vec![(n, "text")])
}

fn main() {}
