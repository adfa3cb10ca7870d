use zerocache_client::zerocache;

#[track_caller]
#[zerocache("london", 42)]
fn f(n: u64) -> u64 {
    n
}

fn main() {}
