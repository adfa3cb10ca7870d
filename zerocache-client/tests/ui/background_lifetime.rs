use zerocache_client::zerocache;

#[zerocache("london", 42, stale(while = "1m", background))]
async fn f(name: std::borrow::Cow<'_, str>) -> usize {
    name.len()
}

fn main() {}
