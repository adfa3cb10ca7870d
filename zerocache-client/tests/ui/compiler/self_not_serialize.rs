use zerocache_client::zerocache;

struct Repo;

impl Repo {
    #[zerocache("london", 42)]
    async fn find(&self, id: u64) -> u64 {
        id
    }
}

fn main() {}
