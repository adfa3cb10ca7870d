use zerocache_client::zerocache;

use std::pin::Pin;

#[zerocache("london", 42, call = f_call)]
fn f(n: u64) -> Pin<Box<dyn Future<Output = u64> + Send>> {
    Box::pin(async move { n })
}

fn main() {}
