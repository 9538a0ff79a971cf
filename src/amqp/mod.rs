//! The RabbitMQ door and the publisher.
//!
//! - [`settings`]: what can be set
//! - [`access`]: as whom the adapter connects, and whom it lets in
//! - [`link`]: a connection, made again for ever; [`fault`]: what went wrong, in words for operators
//! - [`transport`]: a connection's bytes; [`mend`]: frames that could not be read otherwise; [`tls`]: why it
//!   cannot be encrypted
//! - [`topology`]: exchanges, queues and bindings
//! - [`properties`]: reading and writing message properties
//! - [`decode`]: a message as a command; its formats are [`json`], [`protobuf`] and [`cloudevents`]
//! - [`generation`]: the queues that commands come by; [`fence`]: the mark behind the last message of one that is left;
//!   [`retire`]: an operator's part in leaving them
//! - [`consume`]: the consumer, for ever; [`row`]: what it consumes from, and [`tap`]: one queue of it; [`aside`]: when a
//!   partition is left to another instance; [`delivery`]: the way of one message; [`settle`]: the table of how it ends;
//!   [`acks`]: its acknowledgement
//! - [`pause`]: no more is taken than there is room for
//! - [`dead_letter`]: a copy of what was refused
//! - [`render`]: a message of the outbox as AMQP wants it
//! - [`publish`]: the publisher; [`lane`]: one channel for it; [`round`]: a batch and its confirms
//! - [`spans`]: traces and metrics by the messaging conventions; [`depth`]: how much waits in the queues; `records`: what
//!   is logged

pub mod access;
pub mod acks;
pub mod aside;
pub mod cloudevents;
pub mod consume;
pub mod dead_letter;
pub mod decode;
pub mod delivery;
pub mod depth;
pub mod fault;
pub mod fence;
pub mod generation;
pub mod json;
pub mod lane;
pub mod link;
pub mod mend;
pub mod pause;
pub mod properties;
pub mod protobuf;
pub mod publish;
pub(crate) mod records;
pub mod render;
pub mod retire;
pub mod round;
pub mod row;
pub mod settings;
pub mod settle;
pub mod spans;
pub mod tap;
pub mod tls;
pub mod topology;
pub mod transport;

pub use consume::Consumer;
pub use publish::BrokerPublisher;
pub use settings::{Address, EventMode, Names, Settings};
