//! One organisation, of those that `telemetry.organizations` lists. Metrics know it by its name in the configuration, traces by its
//! id, which is given by hand.

use super::parts::{Dashboard, Panel, Search};

const ITS: Search = Search::tagged("Traces of the organisation", "command.requester=${requester}");
const ITS_FAULTY: Search =
    Search::tagged("Traces of the organisation with errors", "command.requester=${requester} error=true");

pub fn dashboard() -> Dashboard {
    Dashboard {
        file: "organization.json",
        uid: "adapter-organization",
        title: "Guest-connection adapter: one organisation",
        description: "How one requester organisation fares. Only those that telemetry.organizations lists are told apart. Traces are looked for by its id: put it in above.",
        variable: Some((
            "organization",
            "Organisation",
            "label_values(adapter_organization_commands_total, organization)",
        )),
        text: Some(("requester", "Id, for traces")),
        rows: vec![
            ("Commands and requests", graphs()),
            (
                "Traces",
                vec![
                    Panel::list(
                        "With errors",
                        "The newest traces of the organisation with a fault.",
                        ITS_FAULTY,
                    ),
                    Panel::list("All", "The newest traces of the organisation.", ITS),
                ],
            ),
        ],
    }
}

fn graphs() -> Vec<Panel> {
    vec![
        Panel::graph("Commands", "cps", "Its commands that came to each state.")
            .query(
                "sum by (state) (rate(adapter_organization_commands_total{INSTANCES, organization=\"$organization\"}[$__rate_interval]))",
                "{{state}}",
            )
            .traces(ITS),
        Panel::graph("Acceptance to final state", "s", "How long its commands took.")
            .percentiles("adapter_organization_command_duration_seconds_bucket{INSTANCES, organization=\"$organization\"}", "organization")
            .steps(&[("red", 10.0)])
            .traces(ITS),
        Panel::graph("Requests to the API", "reqps", "PATCHes in its name by the answer's status.")
            .query(
                "sum by (http_response_status_code) (rate(adapter_organization_requests_total{INSTANCES, organization=\"$organization\"}[$__rate_interval]))",
                "{{http_response_status_code}}",
            )
            .traces(ITS_FAULTY),
    ]
}
