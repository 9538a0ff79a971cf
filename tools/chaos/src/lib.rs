//! Seeded chaos around a running adapter, and the promises checked from outside afterwards.
//!
//! - [`plan`]: what is sent and which faults happen when; a seed is a plan
//! - [`stage`], [`instance`]: the parts: a broker's node, the simulator, proxies, the adapter; [`ledger`]: its database
//! - [`load`], [`faults`]: make the plan happen
//! - [`run`]: all of it, until everything is quiet
//! - [`history`]: what is known afterwards, from the simulator's journal, the queues and `GetCommand` alone
//! - [`checks`]: pure functions over a history
//! - [`report`]: for people
//! - [`citizen`]: how good a client of the API the adapter is, measured
//! - [`soak`]: long and large runs without chance

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a harness fails by panicking")]

pub mod calls;
pub mod checks;
pub mod citizen;
pub mod collect;
pub mod faults;
pub mod history;
pub mod instance;
pub mod ledger;
pub mod load;
pub mod messages;
pub mod outages;
pub mod plan;
mod plan_cluster;
mod plan_faults;
mod plan_load;
mod plan_outages;
pub mod report;
pub mod run;
pub mod soak;
pub mod stage;
mod takeover;
pub mod terms;
