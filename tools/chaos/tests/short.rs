//! A short run of chaos: some seconds of a fixed seed, by the same way as `make chaos`.

use std::time::Duration;

use chaos::plan::{Cluster, Plan};
use chaos::{report, run};

#[tokio::test(flavor = "multi_thread")]
async fn some_seconds_of_chaos_break_no_promise() {
    let plan = Plan::new(4711, Duration::from_secs(12), Cluster::ALONE);
    let run = Box::pin(run::run(plan, std::future::pending)).await.expect("its parts start");
    let summary = report::summary(&run);
    if !run.is_sound() {
        let kept = report::keep(&run);
        panic!("{summary}\nits files: {kept:?}");
    }
    println!("{summary}");
}
