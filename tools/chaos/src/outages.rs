//! Makes the faults of the upstream as a whole, of its tokens and of one organisation.

use std::time::Duration;

use harness::FaultProxy;
use simulator::{Rule, RuleBuilder, Simulator};
use tokio::time::sleep;
use uuid::Uuid;

use crate::plan::{Away, Disturbance, Fault, TokenTrouble, Trouble};
use crate::stage::Stage;

/// How long tokens last unless a fault says otherwise.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// How long they last in a fault.
const TOKEN_LIFETIME_SHORT: Duration = Duration::from_secs(1);

/// Makes a fault, and returns when it is over.
pub async fn make(stage: &Stage, fault: &Fault) {
    let simulator = &stage.simulator;
    match &fault.disturbance {
        Disturbance::Away(Away::Refuses) => {
            let proxies = || stage.instances.iter().map(|instance| &instance.upstream_proxy);
            for proxy in proxies() {
                proxy.refuse();
                proxy.cut();
            }
            sleep(fault.lasts).await;
            proxies().for_each(FaultProxy::accept);
        }
        Disturbance::Away(Away::Hangs) => {
            meanwhile(simulator, [Rule::patch().hang(), Rule::token().hang()], fault.lasts).await;
        }
        Disturbance::Away(Away::Answers503) => {
            let rules = [Rule::patch(), Rule::token()].map(|matching| matching.status(503).into());
            meanwhile(simulator, rules, fault.lasts).await;
        }
        Disturbance::Limit(limit) => {
            simulator.limit(Some(*limit));
            sleep(fault.lasts).await;
            simulator.limit(None);
        }
        Disturbance::Tokens(trouble, one) => tokens(simulator, *trouble, *one, fault.lasts).await,
        Disturbance::Organization(one, trouble) => {
            let matching = Rule::patch().requester(*one);
            let rule = match trouble {
                Trouble::Errors => matching.status(500).into(),
                Trouble::Hangs => matching.hang(),
                Trouble::Unauthorized => matching.status(401).into(),
            };
            meanwhile(simulator, [rule], fault.lasts).await;
        }
        _ => {}
    }
}

async fn tokens(simulator: &Simulator, trouble: TokenTrouble, one: Option<Uuid>, lasts: Duration) {
    let matching = one.map_or_else(Rule::token, |one| Rule::token().requester(one));
    let rule = |matching: RuleBuilder| match trouble {
        TokenTrouble::Errors => Some(matching.status(500).into()),
        TokenTrouble::Hangs => Some(matching.hang()),
        TokenTrouble::Refuses => Some(matching.status(401).into()),
        TokenTrouble::ShortLived => None,
    };
    let rule = rule(matching);
    if rule.is_none() {
        simulator.set_token_lifetime(TOKEN_LIFETIME_SHORT);
    }
    match one {
        Some(one) => simulator.revoke_tokens_of(one),
        None => simulator.revoke_tokens(),
    }
    meanwhile(simulator, rule, lasts).await;
    simulator.set_token_lifetime(TOKEN_LIFETIME);
}

/// Has these rules for a while.
async fn meanwhile(simulator: &Simulator, rules: impl IntoIterator<Item = Rule>, lasts: Duration) {
    let rules: Vec<_> = rules.into_iter().map(|rule| simulator.script(rule)).collect();
    sleep(lasts).await;
    rules.into_iter().for_each(|rule| simulator.remove_fault(rule));
}
