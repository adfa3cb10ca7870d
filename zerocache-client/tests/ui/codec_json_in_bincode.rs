use zerocache_client::zerocache;

#[zerocache(ttl = 42, codec = bincode)]
async fn f(n: u64) -> Result<Vec<serde_json::Value>, ()> {
    Ok(vec![n.into()])
}

fn main() {}
