use zerocache_client::zerocache;

#[zerocache("london", "1h", tti = "1h")]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
