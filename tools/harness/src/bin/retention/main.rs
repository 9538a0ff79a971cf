//! `make retention`: what kept commands cost. How long a claim and its end take in a PostgreSQL store that keeps ten thousand
//! commands, and in one that keeps ten million, and how long while those older than the retention are forgotten.
//!
//! Rows are made in bulk after one that the store has written, with indexes built afterwards. What is measured is the store
//! alone: accepting with a claim, which is what a command costs before its PATCH, and the end of that claim.
//!
//! - `fill`: rows in bulk
//! - `series`: commands one after another, and some at once

#![allow(clippy::print_stdout, reason = "it is there to print")]
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a measurement fails by panicking"
)]

mod fill;
mod series;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use guest_connection_adapter::domain::lifecycle::Terms;
use guest_connection_adapter::service::ports::{Store, SystemClock};
use guest_connection_adapter::store::postgres::{PostgresStore, Settings, Target};
use harness::Database;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use fill::Kept;
use series::{Series, Way};

/// How many commands are kept in either place, unless the command line says otherwise.
const SIZES: [i64; 2] = [10_000, 10_000_000];

const TERMS: Terms = Terms {
    lease: TimeDelta::seconds(60),
    settle: TimeDelta::seconds(30),
    hold: TimeDelta::seconds(45),
    give_up_after: TimeDelta::hours(24),
};

/// Half of what is kept is older.
const RETENTION: TimeDelta = TimeDelta::days(7);

/// As the adapter forgets.
const PURGE_MAX: usize = 500;
const PURGE_PAUSE: Duration = Duration::from_millis(20);

/// Turns of each place in a series.
const ROUNDS: usize = 12;

/// How much longer half of the claims, or of their ends, may take among the most commands than among the fewest.
const TIMES_LONGER_MAX: f64 = 2.0;
const LONGER_MAX: Duration = Duration::from_millis(1);

/// A database with so many kept commands.
struct Place {
    store: Arc<dyn Store>,
    kept: Kept,
    label: String,
}

impl Place {
    async fn make(size: i64) -> Self {
        let database = Database::create().await;
        let patience = Duration::from_secs(30);
        let target = Target::new(database.url(), None, None, patience, patience).expect("an address");
        let (settings, clock) = (Settings::new(target), Arc::new(SystemClock));
        let store = PostgresStore::open(settings, TERMS, RETENTION, clock).await.expect("a store");
        let store: Arc<dyn Store> = Arc::new(store);
        let kept = Kept::make(&database, &store, size).await;
        Self { store, kept, label: format!("{size} kept") }
    }

    async fn part(&self, way: Way) -> Series {
        let series = series::run(&self.store, way, self.kept.connections()).await;
        self.kept.tidy().await;
        series
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let given: Vec<i64> = std::env::args().skip(1).map(|size| size.parse().expect("a number")).collect();
    let [few, many] = <[i64; 2]>::try_from(given).unwrap_or(SIZES);
    let mut places = [Place::make(few).await, Place::make(many).await];
    println!("{}", Series::HEAD);
    let mut is_flat = measure(&places).await;
    let purge = Purge::begin(&places[1].store);
    places[1].label.push_str(", purged");
    is_flat &= measure(&places).await;
    is_flat &= purge.end().await;
    for place in &places {
        place.store.close().await.expect("it is closed");
    }
    if is_flat { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All ways, one after another. In each both take turns, so that whatever else the machine does falls on both alike.
async fn measure(places: &[Place; 2]) -> bool {
    let mut is_flat = true;
    for way in Way::ALL {
        let [mut few, mut many] = [Series::default(), Series::default()];
        for round in 0..=ROUNDS {
            let parts = [places[0].part(way).await, places[1].part(way).await];
            // The first one is to get warm.
            if round > 0 {
                let [a, b] = parts;
                few.extend(a);
                many.extend(b);
            }
        }
        for (place, series) in places.iter().zip([&mut few, &mut many]) {
            println!("{}", series.row(&place.label, way));
        }
        for (what, few, many) in [("claims", &few.claims, &many.claims), ("ends", &few.ends, &many.ends)] {
            let (few, many) = (series::percentile(few, 50), series::percentile(many, 50));
            if many > few.mul_f64(TIMES_LONGER_MAX).max(few + LONGER_MAX) {
                println!("retention: MISSED {what}, {way}: {many:.1?} among many, {few:.1?} among few (p50)");
                is_flat = false;
            }
        }
    }
    is_flat
}

/// Old commands are forgotten as the adapter does it, until it is told to end.
struct Purge {
    stop: CancellationToken,
    task: JoinHandle<(u64, Vec<Duration>)>,
    begun: Instant,
}

impl Purge {
    fn begin(store: &Arc<dyn Store>) -> Self {
        let (store, stop) = (Arc::clone(store), CancellationToken::new());
        let told = stop.clone();
        let task = tokio::spawn(async move {
            let (mut gone, mut times) = (0, Vec::new());
            while !told.is_cancelled() {
                let begun = Instant::now();
                let count = store.purge(PURGE_MAX).await.expect("it is purged");
                if count == 0 {
                    break;
                }
                gone += count;
                times.push(begun.elapsed());
                tokio::time::sleep(PURGE_PAUSE).await;
            }
            (gone, times)
        });
        Self { stop, task, begun: Instant::now() }
    }

    /// Tells what it came to. Yields whether there was enough for it to do.
    async fn end(self) -> bool {
        let was_busy = !self.task.is_finished();
        self.stop.cancel();
        let (gone, mut times) = self.task.await.expect("it ends");
        let seconds = self.begun.elapsed().as_secs_f64();
        times.sort_unstable();
        let (half, most) = (series::percentile(&times, 50), series::percentile(&times, 99));
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = gone as f64 / seconds;
        println!(
            "purge: {gone} commands in {seconds:.0} s, {rate:.0} a second; a batch of {PURGE_MAX} took {half:.1?} (p50), \
             {most:.1?} (p99)"
        );
        if !was_busy {
            println!("retention: MISSED there was not enough to purge: what was measured is something else");
        }
        was_busy
    }
}
