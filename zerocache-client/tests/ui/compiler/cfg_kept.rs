use zerocache_client::zerocache;

#[zerocache("london", 42, call = absent_call)]
#[cfg(any())]
fn absent(n: u64) -> u64 {
    n
}

fn main() {
    absent_call(1);
}
