use zerocache_client::zerocache;

#[zerocache("london", 42, skip(n), stale(while = "1m", background))]
async fn f<T: Send + Sync>(n: T) -> u64 {
    std::mem::size_of_val(&n) as u64
}

fn main() {}
