//! The origin: one SQLite file that every process of the service opens.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

/// Connections of one process. Each has a thread of its own: more than cores would only queue.
const CONNECTIONS_MAX: u32 = 4;

/// The longest wait of a write for that of another process.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// A pool of connections that counts statements.
#[derive(Clone, Debug)]
pub struct Database {
    pool: SqlitePool,
    statements: Arc<AtomicU64>,
}

impl Database {
    /// Opens the file. Creates it if it does not exist.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub async fn open(path: &Path) -> Result<Self, sqlx::Error> {
        // WAL: readers of all processes continue while one of them writes.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_MAX);
        let pool =
            SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).connect_with(options).await?;
        Ok(Self { pool, statements: Arc::default() })
    }

    /// Returns the pool for one statement, and counts it.
    #[must_use]
    pub fn statement(&self) -> &SqlitePool {
        self.statements.fetch_add(1, Relaxed);
        &self.pool
    }

    /// The number of statements that this process has sent to the database.
    #[must_use]
    pub fn statements(&self) -> u64 {
        self.statements.load(Relaxed)
    }
}
