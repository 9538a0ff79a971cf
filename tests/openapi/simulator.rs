//! What the simulator answers.

use guest_connection_adapter::mycreditapp::wire;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use simulator::{Config, Rule, Simulator, TimeForm};
use uuid::Uuid;

use crate::document::{Document, Message};

const PATH: &str = "/v1-beta/guest-connections/";
const TOKEN_PATH: &str = "/v1-beta/oauth2/token";

struct Desk {
    document: Document,
    simulator: Simulator,
    client: Client,
    requester: Uuid,
}

impl Desk {
    async fn open() -> Self {
        let simulator = Simulator::start(Config::default()).await.unwrap();
        let requester = Uuid::new_v4();
        simulator.register_client("client", "secret", requester);
        simulator.register_token("static", requester);
        Self { document: Document::read(), simulator, client: Client::new(), requester }
    }

    fn origin(&self) -> String {
        self.simulator.base_url().trim_end_matches("/v1-beta").to_owned()
    }

    /// The status and body of an answer that is as the document has it.
    async fn checked(&self, method: Method, path: &str, response: Response) -> (u16, Value) {
        let status = response.status().as_u16();
        let headers = response.headers().iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        let message = Message { headers, body: response.bytes().await.unwrap().to_vec() };
        let departures = self.document.response_departures(method.as_str(), path, status, &message);
        assert!(departures.is_empty(), "{method} {path} {status}: {departures:?}\n{message:?}");
        (status, serde_json::from_slice(&message.body).unwrap())
    }

    async fn patch(&self, guest: &str, token: &str, target: Uuid, body: Value) -> (u16, Value) {
        let path = format!("{PATH}{guest}");
        let request = self
            .client
            .patch(format!("{}{path}", self.origin()))
            .bearer_auth(token)
            .header(wire::REQUESTER, self.requester.to_string())
            .header(wire::TARGET, target.to_string())
            .json(&body);
        self.checked(Method::PATCH, &path, request.send().await.unwrap()).await
    }

    async fn archive(&self, guest: Uuid) -> (u16, Value) {
        self.patch(&guest.to_string(), "static", self.requester, json!({"archived": true})).await
    }

    async fn token(&self, body: Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{TOKEN_PATH}", self.origin())).json(&body);
        self.checked(Method::POST, TOKEN_PATH, request.send().await.unwrap()).await
    }
}

#[tokio::test]
async fn successes_are_as_the_document_has_them() {
    let desk = Desk::open().await;
    let mut nulls = [false; 2];
    // The simulator's connections differ in what is null.
    for form in [TimeForm::Zoned, TimeForm::Zoneless] {
        for _ in 0..12 {
            let guest = Uuid::new_v4();
            desk.simulator.script(Rule::patch().guest(guest).times(1).time_form(form));
            let (status, body) = desk.archive(guest).await;
            assert_eq!((status, &body["archived"]), (200, &json!(true)));
            nulls[usize::from(body["total_score"].is_null())] = true;
            let off =
                desk.patch(&guest.to_string(), "static", desk.requester, json!({"archived": false})).await;
            assert_eq!(
                (off.0, &off.1["archived"], &off.1["archived_at"]),
                (200, &json!(false), &Value::Null)
            );
        }
    }
    assert_eq!(nulls, [true; 2], "with and without a score");
    let (status, _) = desk.token(json!({"client_id": "client", "client_secret": "secret"})).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn errors_are_as_the_document_has_them() {
    let desk = Desk::open().await;
    let guest = Uuid::new_v4().to_string();
    let good = json!({"archived": true});
    let requester = desk.requester;
    assert_eq!(desk.patch(&guest, "unknown", requester, good.clone()).await.0, 401);
    assert_eq!(desk.patch(&guest, "static", Uuid::new_v4(), good.clone()).await.0, 403);
    assert_eq!(desk.patch("no-uuid", "static", requester, good.clone()).await.0, 422);
    let (status, body) = desk.patch("no-uuid", "static", requester, json!({"archived": 1, "x": 2})).await;
    assert_eq!((status, body["detail"].as_array().unwrap().len()), (422, 3), "several at once");
    assert_eq!(desk.token(json!({"client_id": "client", "client_secret": "wrong"})).await.0, 401);
    assert_eq!(desk.token(json!({"client_id": "client", "grant_type": "x"})).await.0, 422);
    for status in [400, 404, 409, 422, 500, 502] {
        desk.simulator.script(Rule::patch().times(1).status(status));
        desk.simulator.script(Rule::token().times(1).status(status));
        assert_eq!(desk.archive(Uuid::new_v4()).await.0, status);
        assert_eq!(desk.token(json!({"client_id": "client", "client_secret": "secret"})).await.0, status);
    }
    for (status, delay) in [(429, "1"), (503, "Fri, 31 Dec 1999 23:59:59 GMT")] {
        desk.simulator.script(Rule::patch().times(1).status(status).header("retry-after", delay));
        assert_eq!(desk.archive(Uuid::new_v4()).await.0, status);
    }
    desk.simulator.script(Rule::patch().times(1).maintenance());
    let (status, body) = desk.archive(Uuid::new_v4()).await;
    assert_eq!((status, &body["detail"][0]["code"]), (503, &json!("service_under_maintenance")));
}

/// The checks bite: what the simulator sends on purpose against the contract is found.
#[tokio::test]
async fn what_is_scripted_against_the_contract_is_found() {
    let desk = Desk::open().await;
    let guest = Uuid::new_v4();
    desk.simulator.script(Rule::patch().guest(guest).extra_fields());
    let request = desk
        .client
        .patch(format!("{}{PATH}{guest}", desk.origin()))
        .bearer_auth("static")
        .header(wire::REQUESTER, desk.requester.to_string())
        .header(wire::TARGET, desk.requester.to_string())
        .json(&json!({"archived": true}));
    let body: Value = request.send().await.unwrap().json().await.unwrap();
    let departures = desk.document.departures(desk.document.schema("GuestConnection"), &body);
    assert_eq!(departures.len(), 3, "two values, and fields that are not named: {departures:?}");
}
