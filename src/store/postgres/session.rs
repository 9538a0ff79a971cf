//! A connection to the server, made anew when it is gone, and its prepared statements.

use std::collections::HashMap;
use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Row, Statement};
use tokio_util::task::AbortOnDropHandle;

use super::error::{Fault, explained};
use super::tls::Tls;
use crate::service::ports::StoreError;
use crate::store::records;

/// After a connection could not be made none is tried for so long: whoever asks meanwhile hears the same.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// The server's time.
pub(super) const TIME: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// Rows are looked up by indexes, as far as the planner is free to. A plan is kept for as long as the server's statistics are,
/// and one that was made while a table was small would read all of it, however large it has become
/// (<https://www.postgresql.org/docs/current/sql-prepare.html>). What reads a table that has no index for it is dear by these
/// settings, for which the compiler of expressions is not to be started.
const BY_INDEX: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; \
     SET enable_mergejoin = off; SET jit = off";

/// How connections are made.
#[derive(Clone)]
pub struct Target {
    config: Config,
    connect_timeout: Duration,
    pub(super) statement_timeout: Duration,
    /// What each session begins with.
    begin: String,
    tls: Tls,
}

impl Target {
    /// Connections to where `url` says, that can be written to.
    ///
    /// # Errors
    /// It is no address, or the authorities cannot be read.
    pub fn new(
        url: &str,
        password: Option<&str>,
        ca_file: Option<&Path>,
        connect_timeout: Duration,
        statement_timeout: Duration,
    ) -> Result<Self, String> {
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| error.to_string())?;
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err("it must begin with `postgres://`".to_owned());
        }
        // What is in the address is shown here and there.
        if config.get_password().is_some() {
            return Err(
                "it must hold no password: give `store.password_file`, or GCA_STORE__PASSWORD".to_owned()
            );
        }
        if let Some(password) = password {
            config.password(password);
        }
        config.application_name("guest-connection-adapter");
        // After a failover the old primary may still answer, but reads only.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.connect_timeout(connect_timeout);
        let ms = statement_timeout.as_millis();
        // The server has to notice soon that a client has vanished: the locks of its session are waited for.
        let begin = format!(
            "SET statement_timeout = {ms}; SET idle_in_transaction_session_timeout = {ms}; \
             SET synchronous_commit = on; SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; \
             SET tcp_keepalives_count = 3; SET tcp_user_timeout = 30000; {BY_INDEX}"
        );
        Ok(Self { config, connect_timeout, statement_timeout, begin, tls: Tls::new(ca_file)? })
    }

    /// Makes a connection. What it is told by others goes to `words`, as far as there is room.
    pub(super) async fn connect(&self, words: Option<mpsc::Sender<String>>) -> Result<Session, Fault> {
        let connecting = async {
            let (client, mut connection) = self.config.connect(self.tls.clone()).await?;
            // It says why it ended by the failure of what is under way.
            let connection = AbortOnDropHandle::new(tokio::spawn(async move {
                while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                    if let (AsyncMessage::Notification(word), Some(words)) = (message, &words) {
                        let _ = words.try_send(word.payload().to_owned());
                    }
                }
            }));
            client.batch_execute(&self.begin).await?;
            let answer_timeout = self.statement_timeout.saturating_mul(2);
            Ok::<_, Fault>(Session {
                client,
                statements: HashMap::new(),
                answer_timeout,
                _connection: connection,
            })
        };
        match timeout(self.connect_timeout, connecting).await {
            Ok(made) => made,
            Err(_elapsed) => {
                Err(Fault::Unreachable("no connection to PostgreSQL came about in time".to_owned()))
            }
        }
    }
}

/// A connection.
pub(super) struct Session {
    pub(super) client: Client,
    statements: HashMap<&'static str, Statement>,
    /// When a server that says nothing is given up. It gives statements up itself, and earlier.
    answer_timeout: Duration,
    /// Ends with the session: a server that hangs must not keep it, and with it the locks that it holds.
    _connection: AbortOnDropHandle<()>,
}

impl Session {
    /// What the server answers, unless it takes too long.
    pub(super) async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Fault> {
        match timeout(self.answer_timeout, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_elapsed) => Err(Fault::Unreachable("PostgreSQL gave no answer in time".to_owned())),
        }
    }

    /// The server's time, in microseconds since 1970.
    pub(super) async fn time(&self) -> Result<i64, Fault> {
        Ok(self.within(self.client.query_one(TIME, &[])).await?.get(0))
    }

    /// Does what takes no parameters.
    pub(super) async fn command(&self, sql: &str) -> Result<(), Fault> {
        self.within(self.client.batch_execute(sql)).await
    }

    /// A prepared statement.
    pub(super) async fn prepare(&mut self, sql: &'static str) -> Result<Statement, Fault> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.within(self.client.prepare(sql)).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }

    pub(super) async fn query(
        &mut self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        let statement = self.prepare(sql).await?;
        self.within(self.client.query(&statement, parameters)).await
    }

    pub(super) async fn execute(
        &mut self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Fault> {
        let statement = self.prepare(sql).await?;
        self.within(self.client.execute(&statement, parameters)).await
    }
}

/// A connection that is made when it is needed, and made anew after it was lost.
pub(super) struct Link {
    target: Arc<Target>,
    session: Option<Session>,
    /// What each session is begun with, and where what it hears goes.
    listening: Option<(&'static str, mpsc::Sender<String>)>,
    /// Why there was none, and until when that is not asked again.
    failure: Option<(StoreError, Instant)>,
}

impl Link {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self { target, session: None, listening: None, failure: None }
    }

    /// One that begins with `command`, and hands on what it hears.
    pub(super) fn listening(target: Arc<Target>, command: &'static str, words: mpsc::Sender<String>) -> Self {
        Self { listening: Some((command, words)), ..Self::new(target) }
    }

    async fn connect(&self) -> Result<Session, Fault> {
        let Some((command, words)) = &self.listening else { return self.target.connect(None).await };
        let session = self.target.connect(Some(words.clone())).await?;
        session.command(command).await?;
        Ok(session)
    }

    /// The session, or why there is none.
    pub(super) async fn session(&mut self) -> Result<&mut Session, StoreError> {
        if self.session.as_ref().is_some_and(|session| session.client.is_closed()) {
            self.session = None;
        }
        if self.session.is_none() {
            if let Some((error, until)) = &self.failure
                && Instant::now() < *until
            {
                return Err(error.clone());
            }
            match self.connect().await {
                Ok(session) => {
                    if self.failure.take().is_some() {
                        records::StoreReached.log();
                    }
                    self.session = Some(session);
                }
                Err(fault) => {
                    let error = StoreError::from(fault);
                    if self.failure.is_none() {
                        records::StoreUnreached { error: &error }.log();
                    }
                    self.failure = Some((error.clone(), Instant::now() + RETRY_DELAY));
                    return Err(error);
                }
            }
        }
        self.session.as_mut().ok_or_else(|| StoreError("there is no connection".to_owned()))
    }

    /// After `fault`: undoes what is left open, or gives the session up if it is of no more use.
    pub(super) async fn undo(&mut self, fault: &Fault) {
        let Some(session) = &self.session else { return };
        if fault.ends_connection() || session.command("ROLLBACK").await.is_err() {
            self.session = None;
        }
    }
}

/// For errors at opening.
pub(super) fn text(fault: &Fault) -> String {
    match fault {
        Fault::Postgres(error) => explained(error),
        other => other.to_string(),
    }
}
