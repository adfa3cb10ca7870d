//! The requests of customers: few products are popular, most are not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use reqwest::header::CACHE_CONTROL;
use tokio::task::JoinSet;

use crate::clock::now;
use crate::stock::{DAYS, MATERIALS};

/// The time after which a request counts as failed.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The exponent with which the popularity of products falls.
const ZIPF_EXPONENT: f64 = 1.1;

/// Numbers that no product has; robots request some of them repeatedly.
const UNKNOWN_PRODUCTS: u64 = 10;

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The page of a product.
    ProductPage,
    /// The page of a product that does not exist.
    UnknownProduct,
    /// The front page.
    BestSellers,
    /// A search.
    Search,
    /// The sales statistics.
    Sales,
}

impl Kind {
    /// All kinds, in the order of the report.
    pub const ALL: [Self; 5] =
        [Self::ProductPage, Self::UnknownProduct, Self::BestSellers, Self::Search, Self::Sales];

    /// Returns the name in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ProductPage => "product page",
            Self::UnknownProduct => "unknown product",
            Self::BestSellers => "best sellers",
            Self::Search => "search",
            Self::Sales => "sales",
        }
    }

    /// The share of this kind, in percent.
    fn share(self) -> u64 {
        match self {
            Self::ProductPage => 66,
            Self::UnknownProduct => 4,
            Self::BestSellers => 15,
            Self::Search => 12,
            Self::Sales => 3,
        }
    }
}

/// The outcome of one request.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The kind of the request.
    pub kind: Kind,
    /// The time from the due moment until the answer was read.
    pub took: Duration,
    /// The answer was the expected one.
    pub good: bool,
}

/// A steady stream of requests.
#[derive(Clone, Debug)]
pub struct Load {
    /// The processes of each region; a client calls one of its own region at random.
    pub regions: Vec<Vec<SocketAddr>>,
    /// Clients in each region.
    pub clients: u32,
    /// The interval between the requests of a client.
    pub every: Duration,
    /// The duration of the load.
    pub lasts: Duration,
    /// The number of products.
    pub products: u32,
    /// The cache may answer.
    pub caching: bool,
    /// Makes the requests of two loads differ.
    pub seed: u64,
}

impl Load {
    /// Sends the load. Returns all answers, in no order.
    ///
    /// # Errors
    /// If a client cannot be created.
    pub async fn run(&self) -> Result<Vec<Answer>> {
        let mut tasks = JoinSet::new();
        let popularity = Popularity::new(self.products);
        let start = now();
        for (region, processes) in self.regions.iter().enumerate() {
            for client in 0..self.clients {
                let number = region as u64 * u64::from(self.clients) + u64::from(client);
                let customer = Customer {
                    http: reqwest::Client::builder().timeout(ANSWER_MAX).build()?,
                    processes: processes.clone(),
                    random: Random::new(self.seed << 32 | number),
                    popularity: popularity.clone(),
                    caching: self.caching,
                };
                // Simultaneous requests of all clients would measure each other.
                let clients = self.clients * self.regions.len() as u32;
                let first = start + self.every * (number as u32) / clients;
                tasks.spawn(customer.ask(first, self.every, start + self.lasts));
            }
        }
        Ok(tasks.join_all().await.into_iter().flatten().collect())
    }
}

struct Customer {
    http: reqwest::Client,
    processes: Vec<SocketAddr>,
    random: Random,
    popularity: Popularity,
    caching: bool,
}

impl Customer {
    /// Sends requests at fixed times, and measures from those: a slow answer delays the next request,
    /// which counts as slow too, as it would be for another customer.
    async fn ask(mut self, first: Instant, every: Duration, end: Instant) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut due = first;
        while due < end && now() < end {
            tokio::time::sleep(due.saturating_duration_since(now())).await;
            let kind = self.kind();
            let process = self.processes[self.random.below(self.processes.len() as u64) as usize];
            let good = self.request(process, kind).await;
            if !good {
                tracing::warn!(?kind, %process, "a request failed");
            }
            answers.push(Answer { kind, took: now().saturating_duration_since(due), good });
            due += every;
        }
        answers
    }

    async fn request(&mut self, process: SocketAddr, kind: Kind) -> bool {
        let url = format!("http://{process}{}", self.path(kind));
        let mut request = self.http.get(url);
        if !self.caching {
            request = request.header(CACHE_CONTROL, "no-store");
        }
        let wanted = if kind == Kind::UnknownProduct { 404 } else { 200 };
        match request.send().await {
            Ok(answer) => answer.status() == wanted && answer.bytes().await.is_ok(),
            Err(_) => false,
        }
    }

    fn kind(&mut self) -> Kind {
        let mut drawn = self.random.below(100);
        for kind in Kind::ALL {
            match drawn.checked_sub(kind.share()) {
                Some(rest) => drawn = rest,
                None => return kind,
            }
        }
        Kind::ProductPage
    }

    fn path(&mut self, kind: Kind) -> String {
        match kind {
            Kind::ProductPage => format!("/products/{}", self.popularity.draw(&mut self.random)),
            Kind::UnknownProduct => {
                format!("/products/{}", 1_000_000 + self.random.below(UNKNOWN_PRODUCTS))
            }
            Kind::BestSellers => "/best-sellers".to_owned(),
            Kind::Search => {
                let material = self.random.below(MATERIALS.len() as u64);
                format!("/search?text={}", MATERIALS[material as usize])
            }
            // The last quarter, half year, three quarters, year.
            Kind::Sales => {
                format!("/sales?since_day={}", self.random.below(4) as i64 * DAYS / 4)
            }
        }
    }
}

/// Zipf's law: the nth product is requested in proportion to 1 / n^s.
#[derive(Clone)]
struct Popularity {
    sums: Vec<f64>,
}

impl Popularity {
    fn new(products: u32) -> Self {
        let mut sum = 0.0;
        let weight = |n: u32| f64::from(n).powf(-ZIPF_EXPONENT);
        let sums = (1..=products).map(|n| (sum += weight(n), sum).1).collect();
        Self { sums }
    }

    /// The number of a product, from 1.
    fn draw(&self, random: &mut Random) -> usize {
        let total = self.sums.last().copied().unwrap_or_default();
        let drawn = random.unit() * total;
        self.sums.partition_point(|sum| *sum < drawn).min(self.sums.len() - 1) + 1
    }
}

/// Numbers by SplitMix64: good enough for customers, the same in every run. The example stands for
/// itself: it does not use the generator of the tests.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound` - 1.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A number from 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
