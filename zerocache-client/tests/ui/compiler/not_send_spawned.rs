use zerocache_client::zerocache;

use std::rc::Rc;

#[zerocache("london", 42)]
async fn f(n: u64) -> u64 {
    let shared = Rc::new(n);
    std::future::ready(()).await;
    *shared
}

fn send<T: Send>(_: T) {}

fn sends() {
    send(f(1));
}

fn main() {}
