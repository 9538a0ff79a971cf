//! What the process takes of the machine, and what its runtime does.

#![allow(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]

use std::time::Instant;

use opentelemetry::KeyValue;
use procfs::process::{Process, Stat};
use tokio::runtime::Handle;

use super::catalogue as metric;

/// Has the process looked at whenever its metrics are asked for. To be called on the runtime that is meant.
pub(super) fn observe() {
    let started = Instant::now();
    metric::UPTIME.observe(move |seen| seen.observe(started.elapsed().as_secs_f64(), &[]));
    metric::CPU_TIME.observe(|seen| {
        let Some(stat) = stat() else { return };
        let ticks = procfs::ticks_per_second() as f64;
        for (mode, used) in [("user", stat.utime), ("system", stat.stime)] {
            seen.observe(used as f64 / ticks, &[KeyValue::new("cpu.mode", mode)]);
        }
    });
    metric::MEMORY_USAGE.observe(|seen| {
        if let Some(stat) = stat() {
            seen.observe(stat.rss as f64 * procfs::page_size() as f64, &[]);
        }
    });
    metric::MEMORY_VIRTUAL.observe(|seen| {
        if let Some(stat) = stat() {
            seen.observe(stat.vsize as f64, &[]);
        }
    });
    metric::THREADS.observe(|seen| {
        if let Some(stat) = stat() {
            seen.observe(stat.num_threads as f64, &[]);
        }
    });
    metric::FILE_DESCRIPTORS.observe(|seen| {
        if let Ok(count) = Process::myself().and_then(|process| process.fd_count()) {
            seen.observe(count as f64, &[]);
        }
    });
    if let Ok(runtime) = Handle::try_current() {
        observe_runtime(&runtime);
    }
}

fn observe_runtime(runtime: &Handle) {
    let metrics = runtime.metrics();
    let (workers, tasks, queue, busy) = (metrics.clone(), metrics.clone(), metrics.clone(), metrics);
    metric::TOKIO_WORKERS.observe(move |seen| seen.observe(workers.num_workers() as f64, &[]));
    metric::TOKIO_TASKS.observe(move |seen| seen.observe(tasks.num_alive_tasks() as f64, &[]));
    metric::TOKIO_QUEUE.observe(move |seen| seen.observe(queue.global_queue_depth() as f64, &[]));
    metric::TOKIO_BUSY.observe(move |seen| {
        let workers = 0..busy.num_workers();
        let total: f64 = workers.map(|worker| busy.worker_total_busy_duration(worker).as_secs_f64()).sum();
        seen.observe(total, &[]);
    });
}

/// What the kernel says of this process; nothing where it has no `/proc`.
fn stat() -> Option<Stat> {
    Process::myself().and_then(|process| process.stat()).ok()
}
