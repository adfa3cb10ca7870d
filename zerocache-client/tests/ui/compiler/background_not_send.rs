use zerocache_client::zerocache;

#[zerocache("london", 42, skip(n), stale(while = "1m", background))]
async fn f(n: std::rc::Rc<u64>) -> u64 {
    *n
}

fn main() {}
