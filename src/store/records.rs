//! The log records of both stores.

use crate::service::ports::StoreError;
use crate::telemetry::record::records;

records! { "store";
    /// The query that tells which other instances there are has failed; it is asked again at once. Until then this
    /// instance keeps what is its own only for as long as its lease lasts.
    DEBUG PeersUnseen<'a> "the other instances cannot be seen" {
        error: &'a StoreError => display "error",
    }
    /// Instances have not renewed their leases. What was theirs is divided among the others.
    INFO PeersRemoved "instances that were silent are taken for dead" {
        count: u64 => value "count",
    }
    /// This instance ends and could not say so in the database. The others take its work over when its lease is over.
    ///
    /// See that the database works, if it comes again.
    WARN LeaveUntaken<'a> "this instance could not take its leave; its lease runs out" {
        fault: &'a dyn std::fmt::Display => display "fault",
    }
    /// An instance has come or gone; this one is number `index` of `count` now.
    INFO WorkDivided "the work is divided anew among the instances" {
        index: u32 => value "index",
        count: u32 => value "count",
    }
    /// The connection to the database could be made again, after it could not.
    INFO StoreReached "the store can be reached again";
    /// The connection to the database cannot be made. Nothing is taken in until it can; this is told at the first
    /// failure only.
    ///
    /// See that the database runs, that `store.url` and its password are right and that it has connections left.
    WARN StoreUnreached<'a> "the store cannot be reached" {
        error: &'a StoreError => display "error",
    }
    /// The write-ahead log was not copied into the store's file. Nothing is lost; the log grows until it is.
    ///
    /// See to the disk that holds `store.path`.
    WARN LogUncopied<'a> "the write-ahead log of the store could not be copied" {
        error: &'a rusqlite::Error => display "error",
    }
    /// A batch of changes was not written; each of those who asked for one is told.
    ///
    /// See to the disk that holds `store.path`: whether it is full, read-only or broken.
    ERROR Uncommitted<'a> "the store could not commit" {
        error: &'a StoreError => display "error",
        operations: usize => value "operations",
    }
    /// The store's file is damaged. To make nothing worse nothing is written any more, and nothing taken in; the file is
    /// looked through now and then, in case it was put right.
    ///
    /// Stop the adapter, see to the disk, and put back the file from a copy.
    ERROR StoreDamaged<'a> "nothing is written to the store any more" {
        error: &'a StoreError => display "error",
    }
    /// The store's file seemed to be damaged and is not, or not any more.
    INFO StoreSound "the store could be read in full; it is written to again";
}
