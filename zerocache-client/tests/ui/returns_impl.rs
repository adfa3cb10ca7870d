use zerocache_client::zerocache;

#[zerocache("london", 42)]
fn f(n: u64) -> Option<impl Iterator<Item = u64>> {
    Some(0..n)
}

fn main() {}
