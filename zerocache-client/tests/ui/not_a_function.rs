use zerocache_client::zerocache;

#[zerocache("london", 42)]
struct User {
    id: u64,
}

fn main() {}
