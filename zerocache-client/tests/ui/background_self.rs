use zerocache_client::zerocache;

struct Service;

impl Service {
    #[zerocache("london", 42, skip(self), stale(while = "1m", background))]
    async fn f(&self, n: u64) -> u64 {
        n
    }
}

fn main() {}
