use std::collections::{BTreeSet, HashSet};

use uuid::Uuid;

use super::*;
use crate::domain::access::Scope;
use crate::domain::command::OrganizationId;

fn principal(name: &str) -> Principal {
    Principal {
        name: name.to_owned(),
        organizations: Scope::Only(HashSet::from([OrganizationId(Uuid::from_u128(1))])),
        methods: BTreeSet::from([Method::Archive]),
        requests_per_second: None,
    }
}

fn senders(by_user_id: bool, unnamed: bool) -> Senders {
    let policy = Policy::new([(principal("billing"), vec![Identity::AmqpUser("billing-user".to_owned())])]);
    let unnamed = unnamed.then(|| Arc::new(principal("legacy")));
    Senders { policy: Arc::new(policy), by_user_id, unnamed }
}

fn from(user: &str) -> BasicProperties {
    BasicProperties::default().with_user_id(user.into())
}

fn asked_by(senders: &Senders, properties: &BasicProperties) -> Result<AskedBy, Reason> {
    senders.sender(properties).map(|sender| sender.asked_by()).map_err(|refusal| refusal.reason)
}

#[test]
fn a_user_is_who_the_policy_says() {
    let senders = senders(true, false);
    let known = AskedBy { principal: Some("billing".to_owned()), address: Some("billing-user".to_owned()) };
    assert_eq!(asked_by(&senders, &from("billing-user")), Ok(known));
    for properties in [from("stranger"), from(""), from("billing"), BasicProperties::default()] {
        assert_eq!(asked_by(&senders, &properties), Err(Reason::Unauthenticated));
    }
}

#[test]
fn a_user_who_is_called_like_a_person_is_not_kept() {
    let identity = Identity::AmqpUser("anna@example.org".to_owned());
    let policy = Policy::new([(principal("billing"), vec![identity])]);
    let senders = Senders { policy: Arc::new(policy), by_user_id: true, unnamed: None };
    let kept = AskedBy { principal: Some("billing".to_owned()), address: None };
    assert_eq!(asked_by(&senders, &from("anna@example.org")), Ok(kept));
}

#[test]
fn who_names_no_user_is_the_unnamed_one_and_a_stranger_is_not() {
    let legacy = AskedBy { principal: Some("legacy".to_owned()), address: None };
    let named = senders(true, true);
    assert_eq!(asked_by(&named, &BasicProperties::default()), Ok(legacy.clone()));
    assert_eq!(asked_by(&named, &from("stranger")), Err(Reason::Unauthenticated));
    // Without the broker's word a user id is nothing but a claim.
    let unnamed = senders(false, true);
    assert_eq!(asked_by(&unnamed, &from("billing-user")), Ok(legacy));
}

#[test]
fn nobody_is_asked_unless_it_is_wanted() {
    assert_eq!(asked_by(&Senders::default(), &from("anyone")), Ok(AskedBy::default()));
}

#[test]
fn credentials_are_compared_and_not_shown() {
    let one = Credentials {
        username: "user".to_owned(),
        password: "s3cret".into(),
        certificate: Some(("certificate".to_owned(), "pr1vate".into())),
        ..Credentials::default()
    };
    assert_eq!(one, one.clone());
    assert_ne!(one, Credentials { password: "other".into(), ..one.clone() });
    let certificate = Some(("certificate".to_owned(), "other".into()));
    assert_ne!(one, Credentials { certificate, ..one.clone() });
    let shown = format!("{one:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("pr1vate"), "{shown}");
}
