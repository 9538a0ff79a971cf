//! Messages on standard output, one JSON object a line, for a service that runs without a broker.
//!
//! An event is a structured CloudEvent; a dead letter and a reply say so in `kind`.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::domain::error::Refusal;
use crate::domain::message::{DeadLetter, Message, Reply};
use tokio::time::Instant;

use crate::service::ports::{OVER, Publication, Publisher};
use crate::wire::cloudevents::{CloudEvent, Origin};
use crate::wire::command::CommandHistory;
use crate::wire::reply::ReplyBody;
use crate::wire::time_text;

/// Publishes to a stream of lines.
#[derive(Clone)]
pub struct LinePublisher {
    origin: Origin,
    lines: Arc<Mutex<dyn Write + Send>>,
}

/// A dead letter as a line.
#[derive(Serialize)]
struct DeadLetterLine<'a> {
    kind: &'static str,
    id: String,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    refusal: &'a Refusal,
    command: CommandHistory,
}

/// A reply as a line.
#[derive(Serialize)]
struct ReplyLine<'a> {
    kind: &'static str,
    id: String,
    reply_to: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    reply: ReplyBody<'a>,
}

impl LinePublisher {
    /// Writes to standard output.
    #[must_use]
    pub fn stdout(origin: Origin) -> Self {
        Self::new(origin, std::io::stdout())
    }

    /// Writes to `lines`.
    pub fn new(origin: Origin, lines: impl Write + Send + 'static) -> Self {
        Self { origin, lines: Arc::new(Mutex::new(lines)) }
    }

    fn line(&self, message: &Message) -> Result<Box<RawValue>, serde_json::Error> {
        match message {
            Message::Event(event) => CloudEvent::of(event, &self.origin)?.structured(),
            Message::DeadLetter(letter) => to_raw_value(&DeadLetterLine::from(&**letter)),
            Message::Reply(reply) => to_raw_value(&ReplyLine::from(&**reply)),
        }
    }

    /// Writes all lines and flushes; what could not be flushed counts as not published.
    fn write(&self, messages: &[Arc<Message>]) -> Result<(), String> {
        let mut text = String::new();
        for message in messages {
            let line = self.line(message).map_err(|error| format!("cannot be written as JSON: {error}"))?;
            text.push_str(line.get());
            text.push('\n');
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.write_all(text.as_bytes()).and_then(|()| lines.flush()).map_err(|error| error.to_string())
    }
}

impl<'a> From<&'a DeadLetter> for DeadLetterLine<'a> {
    fn from(letter: &'a DeadLetter) -> Self {
        Self {
            kind: "dead_letter",
            id: letter.id.to_string(),
            time: time_text(letter.time),
            traceparent: letter.trace.traceparent.as_deref(),
            refusal: &letter.refusal,
            command: (&letter.command).into(),
        }
    }
}

impl<'a> From<&'a Reply> for ReplyLine<'a> {
    fn from(reply: &'a Reply) -> Self {
        Self {
            kind: "reply",
            id: reply.id.to_string(),
            reply_to: &reply.address.reply_to,
            correlation_id: reply.address.correlation_id.as_deref(),
            traceparent: reply.trace.traceparent.as_deref(),
            reply: reply.into(),
        }
    }
}

impl Publisher for LinePublisher {
    fn publish(
        &self,
        messages: Vec<Arc<Message>>,
        until: Option<Instant>,
    ) -> BoxFuture<'_, Vec<Publication>> {
        let publisher = self.clone();
        Box::pin(async move {
            let count = messages.len();
            // A pipe that nobody reads blocks, so it is not written to on a thread that others need.
            if until.is_some_and(|until| Instant::now() >= until) {
                return vec![Publication::Failed(OVER.to_owned()); count];
            }
            let written = tokio::task::spawn_blocking(move || publisher.write(&messages)).await;
            let publication = match written {
                Ok(Ok(())) => Publication::Confirmed,
                Ok(Err(error)) => Publication::Failed(error),
                Err(error) => Publication::Failed(error.to_string()),
            };
            vec![publication; count]
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::Value;

    use super::*;
    use crate::wire::samples;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn each_message_is_a_line_of_its_kind() {
        let shared = Shared::default();
        let origin = Origin { source: "/adapter".into(), type_prefix: "com.example".into() };
        let publisher = LinePublisher::new(origin, shared.clone());
        let messages = [
            Message::Event(Box::new(samples::event())),
            Message::DeadLetter(Box::new(samples::dead_letter())),
            Message::Reply(Box::new(samples::reply())),
        ];
        assert_eq!(
            publisher.publish(messages.map(Arc::new).to_vec(), None).await,
            vec![Publication::Confirmed; 3]
        );
        let text = String::from_utf8(shared.0.lock().expect("not poisoned").clone()).expect("UTF-8");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines[0]["specversion"], "1.0");
        assert_eq!(lines[1]["kind"], "dead_letter");
        assert_eq!(lines[1]["refusal"]["reason"], "UPSTREAM_NOT_FOUND");
        assert_eq!(lines[2]["kind"], "reply");
        assert_eq!(lines[2]["reply"]["status"], "succeeded");
        assert_eq!(lines[2]["correlation_id"], "c-1");
    }
}
