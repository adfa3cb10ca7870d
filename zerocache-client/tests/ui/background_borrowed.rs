use zerocache_client::zerocache;

#[zerocache("london", 42, stale(while = "1m", background))]
async fn f(name: &str, id: u64) -> usize {
    name.len() + id as usize
}

fn main() {}
