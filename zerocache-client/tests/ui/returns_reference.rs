use zerocache_client::zerocache;

#[zerocache("london", 42)]
async fn f(text: &str) -> &str {
    text
}

fn main() {}
