//! The service as a whole: its objective, rate, errors and duration by door, and how full it is.

use super::parts::{Dashboard, Panel, Search};

pub fn dashboard() -> Dashboard {
    Dashboard {
        file: "overview.json",
        uid: "adapter-overview",
        title: "Guest-connection adapter: service",
        description: "What the adapter does, by door, whether it is in time, and how full it is.",
        variable: None,
        text: None,
        rows: vec![
            ("Objective: 99.5 % of commands final within 10 s, over 30 days", objective()),
            ("Rate", rate()),
            ("Errors", errors()),
            ("Duration", duration()),
            ("Saturation", saturation()),
            ("Traces", vec![Panel::list("With errors", "The newest traces with a fault.", Search::FAULTY)]),
        ],
    }
}

fn objective() -> Vec<Panel> {
    vec![
        Panel::number(
            "Final within 10 s",
            "percentunit",
            "Of the commands that became final in the last 5 minutes.",
        )
        .query("1 - slo:commands_late:rate5m / slo:commands_final:rate5m", "")
        .steps(&[("red", 0.0), ("green", 0.995)])
        .traces(Search::LATE),
        Panel::number(
            "Error budget left",
            "percentunit",
            "Of the last 30 days; below 0 the objective is missed.",
        )
        .query("slo:commands_late:budget_left30d", "")
        .steps(&[("red", -1000.0), ("orange", 0.0), ("green", 0.25)])
        .traces(Search::LATE),
        Panel::number("Books out of balance", "short", "What is lost from the store; always 0.")
            .query("max by (book) (abs(adapter_books_balance))", "{{book}}")
            .steps(&[("red", 0.5)]),
        Panel::number(
            "Parts not ready",
            "short",
            "Parts of instances that cannot do their work; /readyz says why.",
        )
        .query("sum(adapter_part_condition{INSTANCES} == bool 2)", "")
        .steps(&[("red", 0.5)]),
        Panel::number("Instances", "short", "Instances that share the store, as they count themselves.")
            .query("max(adapter_instances)", "")
            .steps(&[]),
        Panel::number("Alerts", "short", "Alerts that fire now, by severity.")
            .query("count by (severity) (ALERTS{alertstate=\"firing\"})", "{{severity}}")
            .steps(&[("orange", 0.5)]),
        Panel::graph(
            "Burn rate",
            "short",
            "How many times faster than allowed the error budget is spent, by window.",
        )
        .query("slo:commands_late:burn5m", "5m")
        .query("slo:commands_late:burn1h", "1h")
        .query("slo:commands_late:burn6h", "6h")
        .query("slo:commands_late:burn3d", "3d")
        .steps(&[("orange", 6.0), ("red", 14.4)])
        .traces(Search::LATE),
        Panel::graph("Oldest", "s", "The age of the oldest one in each state, of the whole store.")
            .query("max by (state) (adapter_oldest_age_seconds)", "{{state}}"),
        Panel::graph(
            "Connections in doubt",
            "short",
            "Suspect connections of the whole store, and results in an hour that came too late.",
        )
        .query("max(adapter_connections_suspect)", "suspect")
        .query("sum(increase(adapter_finishes_refused_total{INSTANCES}[1h]))", "refused in 1 h"),
    ]
}

fn rate() -> Vec<Panel> {
    vec![
        Panel::graph("Submissions", "reqps", "What came in, by door, and what became of it at once.")
            .query("sum by (door, result) (rate(adapter_submissions_total{INSTANCES}[$__rate_interval]))", "{{door}} {{result}}"),
        Panel::graph("Commands", "cps", "Commands that came to each state.")
            .query("sum by (state) (rate(adapter_commands_total{INSTANCES}[$__rate_interval]))", "{{state}}")
            .traces(Search::of("Traces of commands", "command")),
        Panel::graph("gRPC calls", "reqps", "Calls by method and status.")
            .query(
                "sum by (rpc_method, rpc_response_status_code) (rate(rpc_server_call_duration_seconds_count{INSTANCES}[$__rate_interval]))",
                "{{rpc_method}} {{rpc_response_status_code}}",
            ),
    ]
}

fn errors() -> Vec<Panel> {
    vec![
        Panel::graph("Commands not applied", "percentunit", "The share of commands that ended rejected, failed or abandoned, of the whole service.")
            .query("door:adapter_commands_unapplied:ratio_rate5m", "{{door}}")
            .traces(Search::FAULTY),
        Panel::graph("Refusals", "reqps", "What was refused at the doors, by reason (docs/errors.md).")
            .query("sum by (door, reason) (rate(adapter_refusals_total{INSTANCES}[$__rate_interval]))", "{{door}} {{reason}}")
            .traces(Search::FAULTY),
        Panel::graph("Dead letters", "cps", "Commands given up or rejected, and messages refused at the door.")
            .query("sum(rate(adapter_amqp_dead_letters_total{INSTANCES}[$__rate_interval]))", "messages refused")
            .query("sum(rate(adapter_outbox_delay_seconds_count{INSTANCES, kind=\"dead_letter\"}[$__rate_interval]))", "commands")
            .traces(Search::FAULTY),
    ]
}

fn duration() -> Vec<Panel> {
    vec![
        Panel::graph("Acceptance to final state", "s", "How long commands took, by door.")
            .percentiles("adapter_command_duration_seconds_bucket{INSTANCES}", "door")
            .steps(&[("red", 10.0)])
            .traces(Search::LATE),
        Panel::graph("gRPC calls", "s", "How long calls took, by method.")
            .percentiles("rpc_server_call_duration_seconds_bucket{INSTANCES}", "rpc_method"),
        Panel::graph("Where the time goes", "s", "The mean time of each step of a command.")
            .query(
                "sum by (step) (rate(adapter_step_duration_seconds_sum{INSTANCES}[$__rate_interval])) / sum by (step) (rate(adapter_step_duration_seconds_count{INSTANCES}[$__rate_interval]))",
                "{{step}}",
            )
            .traces(Search::LATE),
    ]
}

fn saturation() -> Vec<Panel> {
    vec![
        Panel::graph("Under way", "short", "Commands under way in the processes, by how they came there.")
            .query("sum by (way) (adapter_commands_under_way{INSTANCES})", "{{way}}"),
        Panel::graph("Lanes", "short", "Connections with work, and the commands in the deepest lane.")
            .query("sum(adapter_lanes{INSTANCES})", "lanes")
            .query("max(adapter_lane_depth_max{INSTANCES})", "deepest")
            .traces(Search::of("Traces with a lane", "lane_wait")),
        Panel::graph("Not final", "short", "Commands in the store that are not final, by state.").query(
            "max by (state) (adapter_books_commands{state=~\"accepted|in_flight|deferred\"})",
            "{{state}}",
        ),
    ]
}
