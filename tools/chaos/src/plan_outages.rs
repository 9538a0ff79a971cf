//! The part of a plan that tells when the whole upstream is away or limits its clients, what becomes of tokens, and which
//! organisation fares badly.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use simulator::{Limit, RetryAfter, Scope, Window};
use uuid::Uuid;

use crate::plan::{Away, Disturbance, Fault, TokenTrouble, Trouble};
use crate::plan_faults::between;

/// A run that is shorter has no calm end.
const CALM_WORTH: Duration = Duration::from_secs(8);

/// When everything but the trouble of one organisation has begun: the last quarter of a run has nothing else, so that it
/// shows what that alone does to the others.
#[must_use]
pub fn calm(duration: Duration) -> Duration {
    if duration < CALM_WORTH { duration } else { duration * 3 / 4 }
}

/// The upstream away, limits and token failures in turn, in an order by chance.
pub fn outages(rng: &mut StdRng, duration: Duration, organizations: &[Uuid]) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut at = between(rng, 1_000, 3_000);
    let first = rng.random_range(0..3);
    while at < duration {
        let lasts = between(rng, 800, 4_000);
        let disturbance = match (first + faults.len()) % 3 {
            0 => Disturbance::Away(
                *[Away::Answers503, Away::Hangs, Away::Refuses].choose(rng).expect("some are given"),
            ),
            1 => Disturbance::Limit(limit(rng)),
            _ => tokens(rng, organizations),
        };
        faults.push(Fault::new(at, lasts, disturbance));
        at += lasts + between(rng, 500, 4_000);
    }
    faults
}

/// Far below the load, so that most of it is refused.
fn limit(rng: &mut StdRng) -> Limit {
    let windows = [Window::FixedSecond, Window::Sliding, Window::TokenBucket { burst: 3 }];
    let forms = [RetryAfter::None, RetryAfter::Seconds, RetryAfter::HttpDate];
    Limit::per_second(rng.random_range(0..15))
        .window(*windows.choose(rng).expect("some are given"))
        .scope(if rng.random() { Scope::Api } else { Scope::EachRequester })
        .retry_after(*forms.choose(rng).expect("some are given"))
}

fn tokens(rng: &mut StdRng, organizations: &[Uuid]) -> Disturbance {
    use TokenTrouble::{Errors, Hangs, Refuses, ShortLived};
    let trouble = *[Errors, Hangs, Refuses, ShortLived].choose(rng).expect("some are given");
    let one = rng.random_bool(0.5).then(|| *organizations.choose(rng).expect("some are given"));
    Disturbance::Tokens(trouble, one)
}

/// One organisation fares badly from early on until the end.
pub fn organization(rng: &mut StdRng, duration: Duration, organizations: &[Uuid]) -> Vec<Fault> {
    let (at, lasts) = (duration / 6, duration * 5 / 6);
    let one = *organizations.choose(rng).expect("some are given");
    let troubles = [Trouble::Errors, Trouble::Hangs, Trouble::Unauthorized];
    let disturbance = Disturbance::Organization(one, *troubles.choose(rng).expect("some are given"));
    vec![Fault::new(at, lasts, disturbance)]
}
