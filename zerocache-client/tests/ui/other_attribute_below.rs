use zerocache_client::zerocache;

#[zerocache("london", 42)]
#[tokio::main]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
