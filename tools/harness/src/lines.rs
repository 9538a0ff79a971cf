//! What a process writes, line by line.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::watch;
use tokio::time::timeout;

/// The lines that a process writes.
#[derive(Clone)]
pub struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Receiver<usize>,
}

impl Lines {
    pub(crate) fn follow(stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (sender, count) = watch::channel(0);
        let kept = lines.clone();
        tokio::spawn(async move {
            let mut reader = BufReader::new(stream).lines();
            while let Ok(Some(line)) = reader.next_line().await {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                sender.send_modify(|count| *count += 1);
            }
        });
        Self { lines, count }
    }

    /// Every line so far.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all lines so far are as `wanted`.
    ///
    /// # Errors
    /// Every line, if they did not become so in time or the stream ended.
    pub async fn wait_until(
        &self,
        deadline: Duration,
        wanted: impl Fn(&[String]) -> bool,
    ) -> Result<(), Vec<String>> {
        let mut count = self.count.clone();
        let reached = async {
            while !wanted(&self.all()) {
                count.changed().await.ok()?;
            }
            Some(())
        };
        timeout(deadline, reached).await.ok().flatten().ok_or_else(|| self.all())
    }

    /// The first line that is `wanted`, as soon as it is there.
    ///
    /// # Errors
    /// Every line, if it did not come in time or the stream ended.
    pub async fn wait_for(
        &self,
        deadline: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String, Vec<String>> {
        let mut count = self.count.clone();
        let found = async {
            let mut seen = 0;
            loop {
                let lines = self.all();
                if let Some(line) = lines[seen..].iter().find(|line| wanted(line)) {
                    return Some(line.clone());
                }
                seen = lines.len();
                if *count.borrow_and_update() == seen && count.changed().await.is_err() {
                    return None;
                }
            }
        };
        timeout(deadline, found).await.ok().flatten().ok_or_else(|| self.all())
    }
}
