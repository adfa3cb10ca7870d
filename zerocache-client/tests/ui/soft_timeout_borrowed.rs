use zerocache_client::zerocache;

#[zerocache("london", 42, stale(if_error = "1m"), soft_timeout = "200ms")]
async fn f(name: &str) -> Result<usize, ()> {
    Ok(name.len())
}

fn main() {}
