//! A durable adapter between a company's systems and the MyCreditApp guest-connections API.

pub mod admin;
pub mod amqp;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod grpc;
pub mod mycreditapp;
pub mod proto;
pub mod service;
pub mod stdout;
pub mod store;
pub mod telemetry;
pub mod wire;
