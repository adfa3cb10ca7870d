use zerocache_client::zerocache;

#[zerocache("london", 42, cache_if = |text: &String| text.is_empty())]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
