use zerocache_client::zerocache;

#[zerocache("london", 42)]
async fn f(n: u64) -> u64 {
    n
}

fn blocks() {
    f(1).wait();
}

fn main() {}
