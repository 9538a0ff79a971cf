//! A durable adapter between a company's systems and the MyCreditApp guest-connections API.
//!
//! The route of one command: [`grpc`] or [`amqp`] reads it, [`domain::command`] checks it, [`service::archiver`] takes
//! it in, [`store`] claims it, [`service::worker`] has [`mycreditapp`] send the PATCH, [`domain::reply`] says what the
//! answer means, the store writes outcome and outbox, one table of the door answers, and apart from all that
//! [`service::relay`] publishes.
//!
//! | module | job | may use |
//! | --- | --- | --- |
//! | [`domain`] | the decisions: no async, no I/O, no clock | nothing of ours |
//! | [`service`] | the loop, and the ports to the outside | `domain`, `telemetry` |
//! | [`grpc`], [`amqp`] | the doors; `amqp` is also the publisher | those, `proto`, `wire`, `jwt` |
//! | [`jwt`] | bearer tokens, and the keys for them | `service`, `telemetry`, `mycreditapp::roots` |
//! | [`mycreditapp`], [`store`], [`stdout`] | the upstream, the store, events without a broker | those, `wire` |
//! | [`wire`] | messages of ours in JSON | `domain` |
//! | [`tls`] | certificates and keys of a server, from files | none |
//! | [`telemetry`] | logs, traces and metrics | `domain::trace` |
//! | [`admin`] | health, metrics, acts of administrators | `domain`, `service`, `telemetry` |
//! | [`config`] | file and environment | `domain`, plain settings of the parts |
//! | [`app`], [`cli`] | put it together | everything |
//!
//! `tests/tidy.rs` holds the code to the last column.

pub mod admin;
pub mod amqp;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod grpc;
pub mod jwt;
pub mod mycreditapp;
pub mod proto;
pub mod service;
pub mod stdout;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod wire;
