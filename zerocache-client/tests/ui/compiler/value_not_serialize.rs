use zerocache_client::zerocache;

#[allow(dead_code)]
struct User(u64);

#[zerocache("london", 42)]
async fn f(n: u64) -> Result<User, String> {
    Ok(User(n))
}

fn main() {}
