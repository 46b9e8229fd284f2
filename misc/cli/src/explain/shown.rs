//! Explanations for people.

use std::{io, time::Duration};

use nydusd_api::{ExplainedChunk, Explanation};

use super::Explained;
use crate::output;

/// Digits of a blob's name that are shown.
const BLOB: usize = 12;

pub(super) fn show(explained: &[Explained]) -> io::Result<()> {
    if explained.is_empty() {
        return output::line("no image is mounted");
    }
    for (place, Explained { image, told }) in explained.iter().enumerate() {
        if place > 0 {
            output::line("")?;
        }
        let age = time(told.age_ms.saturating_mul(1000));
        output::line(format!("{} {image}: mounted {age} ago, {} reads", told.mountpoint, told.reads))?;
        if told.forgotten_reads > 0 {
            output::line(format!("the first {} of them are not remembered", told.forgotten_reads))?;
        }
        output::line("")?;
        output::table(&sources(told))?;
        if !told.reasons.is_empty() {
            output::line("")?;
            output::table(&reasons(told))?;
        }
        if !told.chunks.is_empty() {
            output::line("")?;
            output::table(&chunks(&told.chunks))?;
        }
        if told.left_out > 0 {
            output::line(format!("{} chunks more are not shown", told.left_out))?;
        }
    }
    Ok(())
}

fn head<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

fn sources(told: &Explanation) -> Vec<Vec<String>> {
    let mut rows = vec![head(["SOURCE", "CHUNKS", "BYTES", "WAIT P50", "P90", "MAX"])];
    rows.extend(told.sources.iter().map(|figures| {
        let waits = figures.waits.map(|waits| [waits.p50_us, waits.p90_us, waits.max_us].map(time));
        let [p50, p90, max] = waits.unwrap_or_default();
        vec![figures.source.clone(), figures.chunks.to_string(), output::size(figures.bytes), p50, p90, max]
    }));
    rows
}

fn reasons(told: &Explanation) -> Vec<Vec<String>> {
    let mut rows = vec![head(["READS", "WHY"])];
    rows.extend(told.reasons.iter().map(|figures| vec![figures.reads.to_string(), figures.reason.clone()]));
    rows
}

fn chunks(chunks: &[ExplainedChunk]) -> Vec<Vec<String>> {
    let names = ["WAIT", "SOURCE", "PRIORITY", "ASKED AT", "SIZE", "BLOB", "CHUNK", "FILE", "WHY"];
    let mut rows = vec![head(names)];
    rows.extend(chunks.iter().map(|chunk| {
        let read = chunk.read.as_ref();
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            or_dash(chunk.wait_us.map(time)),
            chunk.source.clone(),
            or_dash(read.map(|read| read.priority.clone())),
            or_dash(read.map(|read| time(read.asked_us))),
            output::size(chunk.size.into()),
            chunk.blob.chars().take(BLOB).collect(),
            chunk.chunk.to_string(),
            or_dash(chunk.file.clone()),
            or_dash(why(chunk)),
        ]
    }));
    rows
}

/// Why a chunk came as it did.
fn why(chunk: &ExplainedChunk) -> Option<String> {
    let again = chunk.read.as_ref().filter(|read| read.attempt > 0);
    let again = again.map(|read| format!("attempt {}", read.attempt + 1));
    let parts: Vec<_> = again.into_iter().chain(chunk.reason.clone()).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// A time for people, with three digits or so.
fn time(micros: u64) -> String {
    let time = Duration::from_micros(micros);
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        1_000_000..120_000_000 => format!("{:.2} s", time.as_secs_f64()),
        _ => format!("{} min", time.as_secs() / 60),
    }
}

#[cfg(test)]
mod tests {
    use nydusd_api::ExplainedRead;

    use super::*;

    #[test]
    fn times_keep_their_unit_in_sight() {
        let shown = [999, 1_500, 2_345_678, 600_000_000].map(time);
        assert_eq!(shown, ["999 µs", "1.5 ms", "2.35 s", "10 min"]);
    }

    #[test]
    fn a_chunk_that_nobody_read_shows_dashes() {
        let chunk = ExplainedChunk {
            blob: "ab".repeat(32),
            chunk: 3,
            stored: None,
            size: 4096,
            source: "absent".into(),
            is_read: false,
            file: None,
            read: None,
            wait_us: None,
            reason: None,
        };
        let row = &chunks(std::slice::from_ref(&chunk))[1];
        assert_eq!(row[..3], ["-", "absent", "-"]);
        assert_eq!((row[5].as_str(), row[8].as_str()), ("abababababab", "-"));
        let read = ExplainedRead {
            range: (0, 1),
            priority: "demand".into(),
            attempt: 1,
            asked_us: 0,
            queued_us: 0,
            first_byte_us: None,
            took_us: None,
            bytes: 0,
        };
        let again = ExplainedChunk { read: Some(read), reason: Some("p2pd is away".into()), ..chunk };
        assert_eq!(why(&again).unwrap(), "attempt 2; p2pd is away");
    }
}
