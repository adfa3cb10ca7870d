//! The shop over HTTP.
//!
//! A request with `Cache-Control: no-store` is answered by the database alone, which shows the
//! effect of the cache.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use zerocache_client::memo::Call;

use crate::queries::{Listed, ProductPage, Sales, Shop};

/// The counters of one process since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Statements that were sent to the database.
    pub statements: u64,
    /// Memoized calls answered from the cache.
    pub hits: u64,
    /// Those of them that the process's own near cache answered.
    pub near_hits: u64,
    /// Memoized calls answered with the value that another call, of this or another process,
    /// computed meanwhile.
    pub shared: u64,
    /// Runs of memoized functions through the cache.
    pub computed: u64,
    /// Nodes that the process's client can use.
    pub nodes: u64,
}

impl Counters {
    /// Returns the sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.each(other, u64::wrapping_add)
    }

    /// Returns the difference to an earlier reading.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        self.each(before, u64::saturating_sub)
    }

    /// Returns the number of memoized calls.
    #[must_use]
    pub fn calls(self) -> u64 {
        self.hits + self.shared + self.computed
    }

    fn each(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            statements: with(self.statements, other.statements),
            hits: with(self.hits, other.hits),
            near_hits: with(self.near_hits, other.near_hits),
            shared: with(self.shared, other.shared),
            computed: with(self.computed, other.computed),
            nodes: with(self.nodes, other.nodes),
        }
    }
}

/// The routes.
pub fn router(shop: Shop) -> Router {
    Router::new()
        .route("/products/{id}", get(product_page).put(set_price))
        .route("/best-sellers", get(best_sellers))
        .route("/search", get(search))
        .route("/sales", get(sales))
        .route("/counters", get(counters))
        .with_state(shop)
}

async fn product_page(
    State(shop): State<Shop>,
    Path(id): Path<i64>,
    caching: Caching,
) -> Result<Json<ProductPage>, Failure> {
    let page = caching.run(shop.product_page(id)).await?;
    page.map(Json).ok_or(Failure::Unknown)
}

/// The body of an update.
#[derive(Debug, Serialize, Deserialize)]
pub struct Price {
    /// The new price.
    pub price_cents: i64,
}

async fn set_price(
    State(shop): State<Shop>,
    Path(id): Path<i64>,
    Json(price): Json<Price>,
) -> Result<StatusCode, Failure> {
    let known = shop.set_price(id, price.price_cents).await?;
    if known { Ok(StatusCode::NO_CONTENT) } else { Err(Failure::Unknown) }
}

async fn best_sellers(
    State(shop): State<Shop>,
    caching: Caching,
) -> Result<Json<Vec<Listed>>, Failure> {
    Ok(Json(caching.run(shop.best_sellers()).await?))
}

#[derive(Deserialize)]
struct Wanted {
    text: String,
}

async fn search(
    State(shop): State<Shop>,
    Query(wanted): Query<Wanted>,
    caching: Caching,
) -> Result<Json<Vec<Listed>>, Failure> {
    Ok(Json(caching.run(shop.search(&wanted.text)).await?))
}

#[derive(Deserialize)]
struct Period {
    since_day: i64,
}

async fn sales(
    State(shop): State<Shop>,
    Query(period): Query<Period>,
    caching: Caching,
) -> Result<Json<Vec<Sales>>, Failure> {
    Ok(Json(caching.run(shop.sales(period.since_day)).await?))
}

async fn counters(State(shop): State<Shop>) -> Json<Counters> {
    let memo = shop.cache.memo_stats();
    let nodes = shop.cache.nodes().iter().filter(|node| node.in_rotation).count();
    Json(Counters {
        statements: shop.database.statements(),
        hits: memo.hits + memo.stale_served + memo.stale_on_error,
        near_hits: memo.near_hits,
        shared: memo.coalesced + memo.lease_found,
        computed: memo.computed,
        nodes: nodes as u64,
    })
}

/// Returns whether a request may be answered from the cache.
struct Caching(bool);

impl Caching {
    async fn run<F: Future>(&self, call: Call<F>) -> F::Output {
        if self.0 { call.await } else { call.uncached().await }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caching {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let refused = parts.headers.get(CACHE_CONTROL).is_some_and(|value| value == "no-store");
        Ok(Self(!refused))
    }
}

/// The reason why a request has no answer.
enum Failure {
    /// There is no such product.
    Unknown,
    /// The database failed.
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Unknown => (StatusCode::NOT_FOUND, "no such product").into_response(),
            Self::Database(error) => {
                tracing::error!(%error, "a query failed");
                (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
            }
        }
    }
}
