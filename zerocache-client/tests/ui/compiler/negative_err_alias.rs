use zerocache_client::zerocache;

type Answer = u64;

#[zerocache("london", 42, negative(err = |_: &String| true, ttl = 5))]
async fn f(n: u64) -> Answer {
    n
}

fn main() {}
