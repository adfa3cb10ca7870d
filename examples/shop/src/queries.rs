//! The shop's queries. Those that are expensive carry `#[zerocache]`.

use serde::{Deserialize, Serialize};
use zerocache_client::{ZerocacheClient, zerocache};

use crate::database::Database;
use crate::stock::DAYS;

/// The number of products in a list.
const LIST_MAX: i64 = 20;

/// The number of products shown as bought together with one.
const TOGETHER_MAX: i64 = 5;

/// The number of reviews on a page.
const REVIEWS_MAX: i64 = 3;

/// The days that count for the best sellers.
const RECENT_DAYS: i64 = 90;

/// A product in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// The number of the product.
    pub id: i64,
    /// The name of the product.
    pub name: String,
    /// Pieces sold, or stars weighted by the helpfulness of the reviews: the order of the list.
    pub score: f64,
}

/// Everything that the page of a product shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProductPage {
    /// The number of the product.
    pub id: i64,
    /// The name of the product.
    pub name: String,
    /// The price in cents.
    pub price_cents: i64,
    /// The rank in its category by pieces sold, from 1.
    pub rank: i64,
    /// The numbers of reviews with one to five stars.
    pub stars: [i64; 5],
    /// The most helpful reviews.
    pub reviews: Vec<String>,
    /// Other products in the same orders, most frequent first.
    pub bought_together: Vec<Listed>,
}

/// The sales of a category in a period of thirty days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sales {
    /// The category.
    pub category: String,
    /// The period, from 0.
    pub period: i64,
    /// Orders with a product of the category.
    pub orders: i64,
    /// The sum paid for these products, in cents.
    pub revenue_cents: i64,
}

/// The shop in one process of the service.
#[derive(Clone, Debug)]
pub struct Shop {
    /// The origin.
    pub database: Database,
    /// The cache, as seen from the region of this process.
    pub cache: ZerocacheClient,
}

impl Shop {
    /// The page of a product; none if there is no such product, which is worth keeping too: robots
    /// ask for what is not there.
    ///
    /// # Errors
    /// If the database fails.
    // A page past its five minutes is better than a slow one, and much better than none. The lease
    // is for `set_price`: it makes a page that was begun before an update and is stored after it,
    // by whatever process, older than the invalidation, which then wins.
    #[zerocache(
        &self.cache,
        "5m",
        skip(self),
        lease = region,
        stale(while = "1m", if_error = "1h"),
        negative(none = "5s"),
        jitter = 10,
        tags = ["products", format!("product:{id}")],
    )]
    pub async fn product_page(&self, id: i64) -> Result<Option<ProductPage>, sqlx::Error> {
        let product = sqlx::query_as("SELECT name, price_cents FROM products WHERE id = ?")
            .bind(id)
            .fetch_optional(self.database.statement())
            .await?;
        let Some((name, price_cents)) = product else {
            return Ok(None);
        };
        Ok(Some(ProductPage {
            id,
            name,
            price_cents,
            rank: self.rank(id).await?,
            stars: self.stars(id).await?,
            reviews: self.reviews(id).await?,
            bought_together: self.bought_together(id).await?,
        }))
    }

    /// The recent best sellers: they are on the front page, so every visitor requests them.
    ///
    /// # Errors
    /// If the database fails.
    // The hottest query: its result is also kept in the process, for at most a second, and refreshed
    // before it expires, so that no visitor waits for it.
    #[zerocache(
        &self.cache,
        "30s",
        skip(self),
        near = "1s",
        stale(while = "30s", if_error = "1h"),
        ahead = "5s",
    )]
    pub async fn best_sellers(&self) -> Result<Vec<Listed>, sqlx::Error> {
        let rows = sqlx::query_as(
            "SELECT p.id, p.name, CAST(SUM(l.quantity) AS REAL) AS sold
             FROM orders o
             JOIN order_lines l ON l.order_id = o.id
             JOIN products p ON p.id = l.product_id
             WHERE o.day >= ? GROUP BY p.id ORDER BY sold DESC, p.id LIMIT ?",
        )
        .bind(DAYS - RECENT_DAYS)
        .bind(LIST_MAX)
        .fetch_all(self.database.statement())
        .await?;
        Ok(listed(rows))
    }

    /// The products whose name or description contains a text, best reviewed first.
    ///
    /// # Errors
    /// If the database fails.
    #[zerocache(&self.cache, "2m", skip(self), jitter = 10, tags = ["products"])]
    pub async fn search(&self, text: &str) -> Result<Vec<Listed>, sqlx::Error> {
        let rows = sqlx::query_as(
            "SELECT p.id, p.name, SUM(r.stars * (1.0 + r.helpful)) / SUM(1.0 + r.helpful) AS score
             FROM products p
             JOIN reviews r ON r.product_id = p.id
             WHERE INSTR(p.name, ?1) OR INSTR(p.description, ?1)
             GROUP BY p.id ORDER BY score DESC, p.id LIMIT ?2",
        )
        .bind(text)
        .bind(LIST_MAX)
        .fetch_all(self.database.statement())
        .await?;
        Ok(listed(rows))
    }

    /// The sales of each category since a day, by periods of thirty days. Reads every order since then.
    ///
    /// # Errors
    /// If the database fails.
    // The most expensive query: one computation per region is enough for all callers.
    #[zerocache(
        &self.cache,
        "10m",
        skip(self),
        lease(region, life = "30s", wait = "5s"),
        stale(while = "10m", if_error = "1h"),
    )]
    pub async fn sales(&self, since_day: i64) -> Result<Vec<Sales>, sqlx::Error> {
        let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
            "SELECT p.category, o.day / 30, COUNT(DISTINCT o.id), SUM(l.quantity * l.price_cents)
             FROM orders o
             JOIN order_lines l ON l.order_id = o.id
             JOIN products p ON p.id = l.product_id
             WHERE o.day >= ? GROUP BY 1, 2 ORDER BY 1, 2",
        )
        .bind(since_day)
        .fetch_all(self.database.statement())
        .await?;
        let sales = |(category, period, orders, revenue_cents)| Sales {
            category,
            period,
            orders,
            revenue_cents,
        };
        Ok(rows.into_iter().map(sales).collect())
    }

    /// Sets the price of a product. Returns whether the product exists.
    ///
    /// # Errors
    /// If the database fails. A failed invalidation is not an error: the update is done, and the old
    /// page ends with its lifetime.
    pub async fn set_price(&self, id: i64, cents: i64) -> Result<bool, sqlx::Error> {
        let done = sqlx::query("UPDATE products SET price_cents = ? WHERE id = ?")
            .bind(cents)
            .bind(id)
            .execute(self.database.statement())
            .await?;
        // After the commit: every later computation reads the new price.
        if let Err(error) = self.product_page(id).invalidate().await {
            tracing::warn!(id, %error, "the old page may be served until its lifetime ends");
        }
        Ok(done.rows_affected() > 0)
    }

    async fn rank(&self, id: i64) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(
            "WITH sold AS (
                 SELECT p.id, SUM(l.quantity) AS pieces
                 FROM products p JOIN order_lines l ON l.product_id = p.id
                 WHERE p.category = (SELECT category FROM products WHERE id = ?1) GROUP BY p.id
             )
             SELECT 1 + COUNT(*) FROM sold
             WHERE pieces > (SELECT COALESCE(MAX(pieces), 0) FROM sold WHERE id = ?1)",
        )
        .bind(id)
        .fetch_one(self.database.statement())
        .await
    }

    async fn stars(&self, id: i64) -> Result<[i64; 5], sqlx::Error> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT stars, COUNT(*) FROM reviews WHERE product_id = ? GROUP BY stars",
        )
        .bind(id)
        .fetch_all(self.database.statement())
        .await?;
        let count = |stars| rows.iter().find(|row| row.0 == stars).map_or(0, |row| row.1);
        Ok([1, 2, 3, 4, 5].map(count))
    }

    async fn reviews(&self, id: i64) -> Result<Vec<String>, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT text FROM reviews WHERE product_id = ? ORDER BY helpful DESC, id LIMIT ?",
        )
        .bind(id)
        .bind(REVIEWS_MAX)
        .fetch_all(self.database.statement())
        .await
    }

    async fn bought_together(&self, id: i64) -> Result<Vec<Listed>, sqlx::Error> {
        let rows = sqlx::query_as(
            "SELECT p.id, p.name, CAST(COUNT(*) AS REAL) AS times
             FROM order_lines mine
             JOIN order_lines other
                 ON other.order_id = mine.order_id AND other.product_id <> mine.product_id
             JOIN products p ON p.id = other.product_id
             WHERE mine.product_id = ? GROUP BY p.id ORDER BY times DESC, p.id LIMIT ?",
        )
        .bind(id)
        .bind(TOGETHER_MAX)
        .fetch_all(self.database.statement())
        .await?;
        Ok(listed(rows))
    }
}

fn listed(rows: Vec<(i64, String, f64)>) -> Vec<Listed> {
    rows.into_iter().map(|(id, name, score)| Listed { id, name, score }).collect()
}
