//! The simulator from outside: over sockets, by its handle, and as a program.

mod common;
mod faults;
mod handle;
mod program;
mod strictness;
