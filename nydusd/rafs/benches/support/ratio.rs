//! Two benchmarks of one run, and the one in relation to the other.

use std::{hint::black_box, time::Instant};

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};

/// Measures `ours` and what it is compared with, and prints our speed as a share of the other's.
#[allow(clippy::print_stdout, reason = "the result of the program")]
pub(crate) fn compare<A, B>(
    criterion: &mut Criterion,
    name: &str,
    (baseline_name, baseline): (&str, impl FnMut() -> A),
    ours: impl FnMut() -> B,
) {
    let mut group = criterion.benchmark_group(name);
    let theirs = measure(&mut group, baseline_name, baseline);
    let ours = measure(&mut group, "ours", ours);
    group.finish();
    if let (Some(theirs), Some(ours)) = (theirs, ours) {
        println!("{name}: {:.2} of the speed of {baseline_name}\n", theirs / ours);
    }
}

/// Seconds for one call in the fastest sample; `None` where a filter leaves the benchmark out.
fn measure<T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    mut work: impl FnMut() -> T,
) -> Option<f64> {
    let mut fastest: Option<f64> = None;
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|times| {
            let start = Instant::now();
            for _ in 0..times {
                black_box(work());
            }
            let took = start.elapsed();
            #[allow(clippy::cast_precision_loss, reason = "a quotient with three digits")]
            let each = took.as_secs_f64() / times as f64;
            fastest = Some(fastest.map_or(each, |known| known.min(each)));
            took
        });
    });
    fastest
}
