use zerocache_client::zerocache;

trait Find {
    #[zerocache("london", 42)]
    async fn find(&self, id: u64) -> u64;
}

fn main() {}
