use zerocache_client::zerocache;

#[allow(dead_code)]
struct Pool;

#[zerocache("london", 42)]
async fn f(pool: &Pool, n: u64) -> u64 {
    let _ = pool;
    n
}

fn main() {}
