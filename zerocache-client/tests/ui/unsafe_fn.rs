use zerocache_client::zerocache;

#[zerocache("london", 42)]
unsafe fn f(n: u64) -> u64 {
    n
}

fn main() {}
