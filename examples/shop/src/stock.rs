//! The contents of the database: products, reviews and a year of orders, the same in every run.

use crate::database::Database;

/// Materials of products; customers search for them.
pub const MATERIALS: [&str; 10] =
    ["oak", "brass", "linen", "glass", "steel", "cork", "wool", "marble", "copper", "paper"];

/// Kinds of products.
const THINGS: [&str; 8] = ["lamp", "chair", "bowl", "clock", "blanket", "shelf", "kettle", "frame"];

/// The days of orders that are kept.
pub const DAYS: i64 = 360;

/// The numbers of rows.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Stock {
    /// Products, numbered from 1.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub products: u32,
    /// Reviews of all products; the first products have most.
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub reviews: u32,
    /// Orders of four lines each.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub orders: u32,
}

const SCHEMA: &str = "
    CREATE TABLE products (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        category TEXT NOT NULL,
        description TEXT NOT NULL,
        price_cents INTEGER NOT NULL
    );
    CREATE TABLE reviews (
        id INTEGER PRIMARY KEY,
        product_id INTEGER NOT NULL REFERENCES products (id),
        stars INTEGER NOT NULL,
        helpful INTEGER NOT NULL,
        text TEXT NOT NULL
    );
    CREATE TABLE orders (id INTEGER PRIMARY KEY, day INTEGER NOT NULL);
    CREATE TABLE order_lines (
        order_id INTEGER NOT NULL REFERENCES orders (id),
        product_id INTEGER NOT NULL REFERENCES products (id),
        quantity INTEGER NOT NULL,
        price_cents INTEGER NOT NULL
    );";

const INDEXES: &str = "
    CREATE INDEX reviews_of_product ON reviews (product_id, stars);
    CREATE INDEX orders_of_day ON orders (day);
    CREATE INDEX lines_of_order ON order_lines (order_id);
    CREATE INDEX lines_of_product ON order_lines (product_id);
    ANALYZE;";

/// Makes the tables and fills them.
///
/// # Errors
/// If a statement fails.
pub async fn fill(database: &Database, stock: Stock) -> Result<(), sqlx::Error> {
    let Stock { products, reviews, orders } = stock;
    let lines = u64::from(orders) * 4;
    sqlx::raw_sql(SCHEMA).execute(database.statement()).await?;
    let material = one_of("i", &MATERIALS);
    let other = one_of("i * 7 + i / 10", &MATERIALS);
    let thing = one_of("i / 3", &THINGS);
    let product = popular("i", products);
    for rows in [
        format!(
            "{} INSERT INTO products SELECT i,
                {material} || ' ' || {thing} || ' no. ' || i, {thing},
                'A ' || {thing} || ' of ' || {material} || ' and ' || {other} ||
                ', made by hand, shipped within three days, with a warranty of ten years.',
                500 + i * 7919 % 20000 FROM n",
            numbers(products.into())
        ),
        format!(
            "{} INSERT INTO reviews SELECT i, {product}, 1 + i * 7 / 3 % 5, i * 31 % 97,
                'It arrived in time and does what it should, says customer ' || i FROM n",
            numbers(reviews.into())
        ),
        format!("{} INSERT INTO orders SELECT i, i * 7919 % {DAYS} FROM n", numbers(orders.into())),
        format!(
            "{} INSERT INTO order_lines SELECT 1 + (i - 1) / 4, {product}, 1 + i % 3,
                500 + i * 104729 % 20000 FROM n",
            numbers(lines)
        ),
        INDEXES.to_owned(),
    ] {
        sqlx::raw_sql(&rows).execute(database.statement()).await?;
    }
    Ok(())
}

/// The numbers from 1 to `last`, as table `n` of column `i`: one statement fills a table, which is a
/// hundred times faster than a statement for each row.
fn numbers(last: u64) -> String {
    format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {last})")
}

/// A product, by two draws whose product favours the first ones, as customers do.
fn popular(i: &str, products: u32) -> String {
    let draw = |factor: u64| format!("({i} * {factor} % 1000003 * {products} / 1000003)");
    format!("(1 + {} * {} / {products})", draw(7919), draw(611_953))
}

/// One of these words, by a number.
fn one_of(number: &str, words: &[&str]) -> String {
    let arms: Vec<_> =
        words.iter().enumerate().map(|(i, word)| format!("WHEN {i} THEN '{word}'")).collect();
    format!("CASE ({number}) % {} {} END", words.len(), arms.join(" "))
}
