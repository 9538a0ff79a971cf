//! The processes and their store.

use super::parts::{Dashboard, Panel, Search};

pub fn dashboard() -> Dashboard {
    Dashboard {
        file: "runtime.json",
        uid: "adapter-runtime",
        title: "Guest-connection adapter: runtime",
        description: "The instances as processes: parts, memory, processor, threads, log, and what their store costs them.",
        variable: None,
        text: None,
        rows: vec![
            ("Instances", instances()),
            ("Process", process()),
            ("Tasks and log", tasks()),
            ("Store", store()),
        ],
    }
}

fn instances() -> Vec<Panel> {
    vec![
        Panel::graph("Scraped", "short", "1 for an instance that Prometheus reaches, else 0.")
            .query("up{job=~\"guest-connection-adapter.*\", INSTANCES}", "{{instance}}"),
        Panel::graph("Parts", "short", "0 ready, 1 degraded, 2 not ready; what is ready at every instance is not shown.")
            .query("adapter_part_condition{INSTANCES} > 0", "{{instance}} {{part}}")
            .steps(&[("orange", 1.0), ("red", 2.0)]),
        Panel::graph("Versions and uptime", "s", "How long each instance has run.")
            .query(
                "process_uptime_seconds{INSTANCES} * on (instance) group_left (service_version) adapter_build_info{INSTANCES}",
                "{{instance}} {{service_version}}",
            ),
    ]
}

fn process() -> Vec<Panel> {
    vec![
        Panel::graph("Processor", "short", "Processors that are used, by instance and mode.").query(
            "sum by (instance, cpu_mode) (rate(process_cpu_time_seconds_total{INSTANCES}[$__rate_interval]))",
            "{{instance}} {{cpu_mode}}",
        ),
        Panel::graph("Memory", "bytes", "Memory that is resident, and the limit of the alert.")
            .query("process_memory_usage_bytes{INSTANCES}", "{{instance}}")
            .query("adapter:memory_limit:bytes", "limit"),
        Panel::graph("File descriptors and threads", "short", "What each process has open, and its threads.")
            .query("process_unix_file_descriptor_count{INSTANCES}", "{{instance}} descriptors")
            .query("process_thread_count{INSTANCES}", "{{instance}} threads"),
    ]
}

fn tasks() -> Vec<Panel> {
    vec![
        Panel::graph(
            "Tasks",
            "short",
            "Tasks of the runtime that are alive, and those that wait for a worker.",
        )
        .query("tokio_tasks_alive{INSTANCES}", "{{instance}} alive")
        .query("tokio_queue_depth{INSTANCES}", "{{instance}} waiting"),
        Panel::graph(
            "Workers busy",
            "percentunit",
            "The share of the time in which the runtime's workers were busy.",
        )
        .query(
            "rate(tokio_busy_seconds_total{INSTANCES}[$__rate_interval]) / tokio_workers{INSTANCES}",
            "{{instance}}",
        )
        .steps(&[("orange", 0.8)]),
        Panel::graph("Log records", "cps", "Log records by level, and repeats that were left out.")
            .query(
                "sum by (level) (rate(adapter_log_records_total{INSTANCES}[$__rate_interval]))",
                "{{level}}",
            )
            .query("sum(rate(adapter_log_suppressed_total{INSTANCES}[$__rate_interval]))", "left out")
            .traces(Search::FAULTY),
    ]
}

fn store() -> Vec<Panel> {
    vec![
        Panel::graph("Commits", "s", "How long a commit took, by kind of store.")
            .percentiles("adapter_store_commit_duration_seconds_bucket{INSTANCES}", "store")
            .steps(&[("orange", 0.5)])
            .traces(Search::of("Traces with a claim", "claim")),
        Panel::graph("Batches", "short", "Requests that share a commit, on average.")
            .query(
                "sum by (instance) (rate(adapter_store_batch_size_sum{INSTANCES}[$__rate_interval])) / sum by (instance) (rate(adapter_store_batch_size_count{INSTANCES}[$__rate_interval]))",
                "{{instance}}",
            ),
        Panel::graph("Errors and purge", "cps", "Errors of the store, and commands that were forgotten after store.retention.")
            .query("sum by (store) (rate(adapter_store_errors_total{INSTANCES}[$__rate_interval]))", "errors {{store}}")
            .query("sum(rate(adapter_retention_purged_total{INSTANCES}[$__rate_interval]))", "forgotten")
            .traces(Search::FAULTY),
    ]
}
