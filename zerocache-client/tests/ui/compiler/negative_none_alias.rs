use zerocache_client::zerocache;

type Answer = u64;

#[zerocache("london", 42, negative(none = 5))]
async fn f(n: u64) -> Answer {
    n
}

fn main() {}
