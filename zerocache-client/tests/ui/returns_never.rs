use zerocache_client::zerocache;

#[zerocache("london", 42)]
fn f(n: u64) -> ! {
    panic!("{n}")
}

fn main() {}
