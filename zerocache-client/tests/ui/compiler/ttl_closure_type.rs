use zerocache_client::zerocache;

#[zerocache("london", |value: &u64| value.to_string())]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
