use zerocache_client::zerocache;

#[zerocache("london", 42, tags = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17"])]
async fn f(n: u64) -> u64 {
    n
}

fn main() {}
