use zerocache_client::zerocache;

#[zerocache("london", 42, stale(if_error = "soon"))]
async fn f(n: u64) -> Result<u64, u8> {
    Ok(n)
}

fn main() {}
