//! The API: how it answers, what is learnt of its limits, and how the organisations fare.

use super::parts::{Dashboard, PATCH, Panel, Search};

const PATCHES: Search = Search::of("Traces with a PATCH", PATCH);

pub fn dashboard() -> Dashboard {
    let failed = PATCHES.with("error=true");
    Dashboard {
        file: "upstream.json",
        uid: "adapter-upstream",
        title: "Guest-connection adapter: the API",
        description: "How the API answers, what the adapter has learnt of it, and how the organisations fare.",
        variable: None,
        text: None,
        rows: vec![
            ("State", state()),
            ("Requests", requests()),
            ("Limits", limits()),
            ("Retries, tokens and contract", retries()),
            (
                "Traces",
                vec![Panel::list(
                    "PATCHes that failed",
                    "The newest traces with a PATCH that failed.",
                    failed,
                )],
            ),
        ],
    }
}

fn state() -> Vec<Panel> {
    vec![
        Panel::number(
            "Breakers not closed",
            "short",
            "Addresses of the API to which only single requests go that try.",
        )
        .query("sum(adapter_upstream_breakers{INSTANCES, state=~\"open|half_open\"})", "")
        .steps(&[("red", 0.5)]),
        Panel::number("Organisations served", "short", "By the instance that serves the fewest.")
            .query("min(adapter_requesters{INSTANCES, state=\"served\"})", "")
            .steps(&[("red", 0.0), ("green", 0.5)]),
        Panel::number(
            "Organisations not served",
            "short",
            "By the instance that serves the fewest; /readyz names them.",
        )
        .query("max(sum by (instance) (adapter_requesters{INSTANCES, state=~\"paused|broken\"}))", "")
        .steps(&[("orange", 0.5)]),
        Panel::number(
            "Without retries",
            "short",
            "Organisations whose retry budget refused a retry in the last 10 s.",
        )
        .query("max(adapter_retry_budget_exhausted{INSTANCES})", "")
        .steps(&[("orange", 0.5)]),
        Panel::number("Tokens failing", "short", "Organisations whose access token cannot be got.")
            .query("max(adapter_tokens{INSTANCES, state=\"failing\"})", "")
            .steps(&[("red", 0.5)]),
        Panel::number("Oldest token", "s", "Since the oldest access token in use was got.")
            .query("max(adapter_token_age_seconds{INSTANCES})", "")
            .steps(&[("orange", 90_000.0)]),
    ]
}

fn requests() -> Vec<Panel> {
    vec![
        Panel::graph("Requests", "reqps", "Requests by what they ask for and the answer's status; without one nothing answered.")
            .query(
                "sum by (url_template, http_response_status_code) (rate(http_client_request_duration_seconds_count{INSTANCES}[$__rate_interval]))",
                "{{url_template}} {{http_response_status_code}}",
            )
            .traces(PATCHES),
        Panel::graph("Failures", "percentunit", "The share of requests that failed, by the kind of failure.")
            .query(
                "sum by (error_type) (rate(http_client_request_duration_seconds_count{INSTANCES, error_type!=\"\"}[$__rate_interval])) / on () group_left () sum(rate(http_client_request_duration_seconds_count{INSTANCES}[$__rate_interval]))",
                "{{error_type}}",
            )
            .steps(&[("red", 0.5)])
            .traces(PATCHES.with("error=true")),
        Panel::graph("Duration", "s", "How long requests took, one attempt each.")
            .percentiles("http_client_request_duration_seconds_bucket{INSTANCES}", "url_template")
            .traces(PATCHES),
    ]
}

fn limits() -> Vec<Panel> {
    vec![
        Panel::graph(
            "Concurrency",
            "short",
            "PATCHes under way, how many may be, and commands that wait for a place.",
        )
        .query("sum(adapter_upstream_concurrency_limit{INSTANCES})", "limit")
        .query("sum(adapter_upstream_concurrency_in_use{INSTANCES})", "in use")
        .query("sum(adapter_upstream_waiting{INSTANCES})", "waiting")
        .traces(Search::of("Traces with a wait", "gate_wait")),
        Panel::graph(
            "Organisations",
            "short",
            "How many organisations are served, by the highest count of an instance.",
        )
        .query("max by (state) (adapter_requesters{INSTANCES})", "{{state}}"),
        Panel::graph("Breakers", "short", "The addresses of the API by the state of their circuit breaker.")
            .query("sum by (state) (adapter_upstream_breakers{INSTANCES})", "{{state}}")
            .traces(PATCHES.with("error=true")),
    ]
}

fn retries() -> Vec<Panel> {
    vec![
        Panel::graph(
            "Retries",
            "cps",
            "Second and later attempts by what they waited for, and those that the budget refused.",
        )
        .query("sum by (reason) (rate(adapter_retries_total{INSTANCES}[$__rate_interval]))", "{{reason}}")
        .query("sum(rate(adapter_retries_refused_total{INSTANCES}[$__rate_interval]))", "refused")
        .traces(Search::of("Traces with a retry", "retry_wait")),
        Panel::graph("Tokens", "short", "Access tokens by state.")
            .query("max by (state) (adapter_tokens{INSTANCES})", "{{state}}"),
        Panel::graph(
            "Departures from the contract",
            "short",
            "Answers in an hour that differ from the contract, by field and kind.",
        )
        .query(
            "sum by (field, kind) (increase(adapter_upstream_drifts_total{INSTANCES}[1h]))",
            "{{field}} {{kind}}",
        )
        .traces(PATCHES),
    ]
}
