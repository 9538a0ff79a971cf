//! RabbitMQ and the outbox: what waits there, what comes in and what goes out.

use super::parts::{Dashboard, Panel, Search};

const PUBLISHED: Search = Search::of("Traces with a publication", "relay");
const CONSUMED: Search = Search::tagged("Traces of messages", "command.door=amqp");

pub fn dashboard() -> Dashboard {
    let failed = CONSUMED.with("command.door=amqp error=true");
    Dashboard {
        file: "broker.json",
        uid: "adapter-broker",
        title: "Guest-connection adapter: broker and outbox",
        description: "What waits in queues and in the outbox, what comes in and what goes out.",
        variable: None,
        text: None,
        rows: vec![
            ("Queues", queues()),
            ("Coming in", incoming()),
            ("Going out", outgoing()),
            ("Outbox", outbox()),
            (
                "Traces",
                vec![Panel::list(
                    "Messages with errors",
                    "The newest traces of messages with a fault.",
                    failed,
                )],
            ),
        ],
    }
}

fn queues() -> Vec<Panel> {
    vec![
        Panel::graph("Messages", "short", "Messages that are ready in each queue, as the broker tells.")
            .query(
                "max by (messaging_destination_name) (adapter_amqp_queue_messages{INSTANCES})",
                "{{messaging_destination_name}}",
            ),
        Panel::graph("Consumers", "short", "Consumers of each queue. Dead letters have none.").query(
            "max by (messaging_destination_name) (adapter_amqp_queue_consumers{INSTANCES})",
            "{{messaging_destination_name}}",
        ),
        Panel::graph("Connections", "short", "Instances that are connected, by what the connection is for.")
            .query("sum by (purpose) (adapter_amqp_connected{INSTANCES})", "{{purpose}}"),
    ]
}

fn incoming() -> Vec<Panel> {
    vec![
        Panel::graph("Consumed", "cps", "Messages that were handed out by the broker, by queue.")
            .query(
                "sum by (messaging_destination_name) (rate(messaging_client_consumed_messages_total{INSTANCES}[$__rate_interval]))",
                "{{messaging_destination_name}}",
            )
            .traces(CONSUMED),
        Panel::graph("Processing", "s", "From a message's arrival to its settlement, by queue.")
            .percentiles("messaging_process_duration_seconds_bucket{INSTANCES}", "messaging_destination_name")
            .traces(CONSUMED),
        Panel::graph("Out of the ordinary", "short", "In ten minutes: acknowledgements lost, messages with another routing key than their guest, and messages refused.")
            .query("sum(increase(adapter_amqp_acks_lost_total{INSTANCES}[10m]))", "acks lost")
            .query("sum(increase(adapter_amqp_misrouted_total{INSTANCES}[10m]))", "misrouted")
            .query("sum(increase(adapter_amqp_dead_letters_total{INSTANCES}[10m]))", "dead letters")
            .traces(CONSUMED.with("command.door=amqp error=true")),
    ]
}

fn outgoing() -> Vec<Panel> {
    vec![
        Panel::graph("Sent", "cps", "Messages that were sent, by exchange.")
            .query(
                "sum by (messaging_destination_name) (rate(messaging_client_sent_messages_total{INSTANCES}[$__rate_interval]))",
                "{{messaging_destination_name}}",
            )
            .traces(PUBLISHED),
        Panel::graph("Sending and acknowledging", "s", "How long the broker takes, by operation.")
            .percentiles("messaging_client_operation_duration_seconds_bucket{INSTANCES}", "messaging_operation_name")
            .traces(PUBLISHED),
        Panel::graph("Failures", "cps", "What failed at the broker, by operation and kind.")
            .query(
                "sum by (messaging_operation_name, error_type) (rate(messaging_client_operation_duration_seconds_count{INSTANCES, error_type!=\"\"}[$__rate_interval]))",
                "{{messaging_operation_name}} {{error_type}}",
            )
            .traces(PUBLISHED.with("error=true")),
    ]
}

fn outbox() -> Vec<Panel> {
    vec![
        Panel::graph("Not confirmed", "short", "Messages in the outbox, of the whole store, that the broker has not confirmed.")
            .query("max(adapter_books_outbox{state=\"pending\"})", "pending")
            .traces(PUBLISHED),
        Panel::graph("Delay", "s", "From the outcome to the broker's confirmation, by kind.")
            .percentiles("adapter_outbox_delay_seconds_bucket{INSTANCES}", "kind")
            .steps(&[("orange", 30.0)])
            .traces(PUBLISHED),
        Panel::graph("Held back", "short", "Connections whose events or replies are held back: nothing is bound for them, or a queue does not confirm.")
            .query("sum by (share) (adapter_outbox_held{INSTANCES})", "{{share}}")
            .query("max(adapter_oldest_age_seconds{state=\"unpublished\"}) / 60", "oldest, in minutes")
            .traces(PUBLISHED.with("error=true")),
    ]
}
