use zerocache_client::zerocache;

#[zerocache("v1", 42)]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
