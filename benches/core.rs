//! How long each stage of the pure core takes: `make bench-core`.

#![allow(clippy::expect_used, clippy::panic, reason = "a bench fails by panicking")]

mod path;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use path::Visitor;

struct Timed<'a>(&'a mut Criterion);

impl Visitor for Timed<'_> {
    fn stage<I, O>(&mut self, name: &'static str, prepare: impl Fn() -> I, work: impl Fn(I) -> O) {
        self.0.bench_function(&format!("core/{name}"), |bencher| {
            bencher.iter_batched(&prepare, &work, BatchSize::SmallInput);
        });
    }
}

fn core(criterion: &mut Criterion) {
    path::visit(&mut Timed(criterion));
}

criterion_group!(benches, core);
criterion_main!(benches);
