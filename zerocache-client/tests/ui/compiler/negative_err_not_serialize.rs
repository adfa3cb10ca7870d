use zerocache_client::zerocache;

struct Opaque;

#[zerocache("london", 42, negative(err = |_: &Opaque| true, ttl = 5))]
async fn f(n: u64) -> Result<u64, Opaque> {
    Ok(n)
}

fn main() {}
