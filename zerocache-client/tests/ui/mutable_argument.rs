use zerocache_client::zerocache;

#[zerocache("london", 42)]
async fn f(log: &mut Vec<u64>) -> usize {
    log.push(1);
    log.len()
}

fn main() {}
