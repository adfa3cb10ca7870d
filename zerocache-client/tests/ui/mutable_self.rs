use zerocache_client::zerocache;

struct Counter(u64);

impl Counter {
    #[zerocache("london", 42)]
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

fn main() {}
