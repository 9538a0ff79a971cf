//! A database of one's own on the PostgreSQL server of the test run, by `scripts/database run`.

use std::net::SocketAddr;

use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// A database. It is dropped with its server.
pub struct Database {
    url: String,
}

impl Database {
    /// Makes a new one.
    pub async fn create() -> Self {
        let server = std::env::var("DATABASE_URL").expect(
            "DATABASE_URL is not set: run the tests by `make test`, or `scripts/database run -- cargo test`",
        );
        Self::create_at(&server).await
    }

    /// Makes a new one on the server at this URL.
    pub async fn create_at(server: &str) -> Self {
        let name = format!("test_{}", Uuid::new_v4().simple());
        let (client, connection) = tokio_postgres::connect(server, NoTls).await.expect("the server");
        let connection = tokio::spawn(connection);
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database");
        drop(client);
        let _ = connection.await;
        let (base, _) = server.rsplit_once('/').expect("a URL with a database");
        Self { url: format!("{base}/{name}") }
    }

    /// A connection to it, besides those of a store.
    pub async fn connect(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.expect("the server");
        tokio::spawn(connection);
        client
    }

    /// Ends all connections to it but the one that asks, as a failover does.
    pub async fn cut(&self) {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        self.connect().await.query(sql, &[]).await.expect("they are ended");
    }

    /// Makes it one that can only be read, as a standby is, or one that can be written again, and cuts all connections.
    pub async fn read_only(&self, is_read_only: bool) {
        let name = self.url.rsplit_once('/').expect("a URL with a database").1;
        let value = if is_read_only { "on" } else { "off" };
        let client = self.connect().await;
        // Each a transaction of its own: it is decided at the beginning of one whether it may write.
        client.batch_execute("SET default_transaction_read_only = off").await.expect("it is said");
        let sql = format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}");
        client.batch_execute(&sql).await.expect("it is said");
        self.cut().await;
    }

    /// Where its server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let (_, place) = self.url.rsplit_once('@').expect("a URL with a user");
        place.split('/').next().and_then(|address| address.parse().ok()).expect("a URL with an address")
    }

    /// Where clients find it by way of a proxy at `address`.
    #[must_use]
    pub fn url_at(&self, address: SocketAddr) -> String {
        self.url.replace(&self.address().to_string(), &address.to_string())
    }

    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}
