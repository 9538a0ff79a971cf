//! A strict stand-in for the `MyCreditApp` guest-connections API, with scripted faults and a journal.
//!
//! | module | job |
//! | --- | --- |
//! | `simulator` | the handle: start, script, look, wait, stop |
//! | `config` | what it is started with |
//! | `server`, `socket` | one port, and connections that can be reset |
//! | `upstream`, `admission` | the API: route, check, admit |
//! | `contract`, `problem` | the checks, and errors in the API's form |
//! | `state`, `tokens`, `connection` | what it knows |
//! | `faults`, `builder`, `script`, `answer` | rules, which one a request meets, and what that does |
//! | `limit` | the rate that is let through |
//! | `journal`, `tally` | what was received, answered and applied; the same in counts |
//! | `control` | the same over HTTP |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod admission;
mod answer;
mod builder;
mod config;
mod connection;
mod contract;
mod control;
mod faults;
mod journal;
mod limit;
mod problem;
mod script;
mod server;
mod simulator;
mod socket;
mod state;
mod tally;
mod tokens;
mod upstream;

pub use builder::{RuleBuilder, StatusBuilder};
pub use config::{Client, Config, StaticToken};
pub use connection::{Connection, TimeForm};
pub use control::ConnectionReport;
pub use faults::{Action, InvalidRule, Match, Rule, RuleId, ScriptedRule, Then};
pub use journal::{Endpoint, Entry, Stats};
pub use limit::{Limit, RetryAfter, Scope, Window};
pub use simulator::{DeadlinePassed, Simulator};
pub use state::Load;
pub use tally::{Tally, buckets, highest};
