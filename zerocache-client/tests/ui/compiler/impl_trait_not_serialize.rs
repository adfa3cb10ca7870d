use zerocache_client::zerocache;

#[zerocache("london", 42)]
async fn f(name: impl AsRef<str>) -> usize {
    name.as_ref().len()
}

fn main() {}
