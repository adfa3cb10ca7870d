use zerocache_client::zerocache;

#[zerocache("london", 42, lease = world)]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
