use zerocache_client::zerocache;

#[zerocache("london", 42, stale(while = "1m", background))]
fn f(n: u64) -> std::pin::Pin<Box<dyn Future<Output = u64> + Send>> {
    Box::pin(async move { n })
}

fn main() {}
