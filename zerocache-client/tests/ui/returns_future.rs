use zerocache_client::zerocache;

#[zerocache("london", 42)]
fn f(n: u64) -> impl Future<Output = u64> {
    async move { n }
}

fn main() {}
