use zerocache_client::zerocache;

#[zerocache("london", 42)]
async fn f(n: u64) {
    let _ = n;
}

fn main() {}
