//! The format of a load process's reports to the process that started it: a line of JSON, then the
//! histograms whose lengths the line gives, in HdrHistogram's V2 format.

use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde_json::{Value, json};

use super::measured::{Measured, Part};
use super::member::Report;

/// The longest line and the longest histogram.
const MOST: u64 = 16 << 20;

/// Writes a report.
pub fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let (name, measured) = match report {
        Report::Ready => return writeln!(out, "{}", json!({ "report": "ready" })),
        Report::Failed(why) => {
            return writeln!(out, "{}", json!({ "report": "failed", "why": why }));
        }
        Report::Progress(measured) => ("progress", measured),
        Report::Done(measured) => ("done", measured),
    };
    let mut bytes = Vec::new();
    let len = put(&mut bytes, &measured.latencies)?;
    let mut parts = Vec::new();
    for part in &measured.parts {
        let len = put(&mut bytes, &part.latencies)?;
        parts.push(json!({ "calls": part.calls, "histogram_bytes": len }));
    }
    let line = json!({
        "report": name,
        "calls": measured.calls,
        "elapsed_ns": measured.elapsed.as_nanos() as u64,
        "client_cpu_ns": measured.client_cpu.as_nanos() as u64,
        "client_busy": measured.client_busy,
        "unanswered": measured.unanswered,
        "cut_short": measured.is_cut_short,
        "histogram_bytes": len,
        "parts": parts,
    });
    writeln!(out, "{line}")?;
    out.write_all(&bytes)
}

/// Appends a histogram and returns its length.
fn put(bytes: &mut Vec<u8>, histogram: &Histogram<u64>) -> io::Result<usize> {
    V2Serializer::new().serialize(histogram, bytes).map_err(io::Error::other)
}

/// Reads a report; `None` at the end.
pub fn read(input: &mut impl BufRead) -> io::Result<Option<Report>> {
    let mut line = Vec::new();
    input.by_ref().take(MOST).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let line: Value = serde_json::from_slice(&line)?;
    let measured = |input: &mut _| read_measured(&line, input);
    match line["report"].as_str() {
        Some("ready") => Ok(Some(Report::Ready)),
        Some("failed") => {
            let why = line["why"].as_str().unwrap_or("it does not say why");
            Ok(Some(Report::Failed(why.into())))
        }
        Some("progress") => measured(input).map(|measured| Some(Report::Progress(measured))),
        Some("done") => measured(input).map(|measured| Some(Report::Done(measured))),
        _ => Err(bad("report")),
    }
}

fn read_measured(line: &Value, input: &mut impl Read) -> io::Result<Measured> {
    let number = |name| line[name].as_u64().ok_or_else(|| bad(name));
    let latencies = take(line, input)?;
    let mut parts = Vec::new();
    for part in line["parts"].as_array().ok_or_else(|| bad("parts"))? {
        let calls = part["calls"].as_u64().ok_or_else(|| bad("calls"))?;
        parts.push(Part { calls, latencies: take(part, input)? });
    }
    Ok(Measured {
        calls: number("calls")?,
        elapsed: Duration::from_nanos(number("elapsed_ns")?),
        latencies,
        client_busy: line["client_busy"].as_f64().ok_or_else(|| bad("client_busy"))?,
        client_cpu: Duration::from_nanos(number("client_cpu_ns")?),
        unanswered: number("unanswered")?,
        is_cut_short: line["cut_short"].as_bool().ok_or_else(|| bad("cut_short"))?,
        parts,
    })
}

/// Reads the histogram whose length this object gives.
fn take(object: &Value, input: &mut impl Read) -> io::Result<Histogram<u64>> {
    let name = "histogram_bytes";
    let len = object[name].as_u64().filter(|&len| len <= MOST).ok_or_else(|| bad(name))?;
    let mut bytes = Vec::new();
    input.take(len).read_to_end(&mut bytes)?;
    Deserializer::new().deserialize(&mut &bytes[..]).map_err(io::Error::other)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a report without a good {what:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(report: &Report) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, report).unwrap();
        bytes
    }

    fn measured() -> Measured {
        let mut measured = Measured::nothing(2).unwrap();
        measured.calls = 3;
        measured.elapsed = Duration::new(2, 1);
        measured.client_cpu = Duration::from_nanos(12_345);
        measured.client_busy = 0.25;
        measured.unanswered = 7;
        measured.is_cut_short = true;
        for latency in [1000, 2_000_000, 100_000_000_000] {
            measured.latencies.record(latency).unwrap();
        }
        measured.parts[1].calls = 2;
        measured.parts[1].latencies.record_n(5000, 2).unwrap();
        measured
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let mut all = bytes(&Report::Ready);
        all.extend(bytes(&Report::Progress(measured())));
        all.extend(bytes(&Report::Done(measured())));
        all.extend(bytes(&Report::Failed("a \"reason\"\nof two lines".into())));
        let mut input = &all[..];
        assert!(matches!(read(&mut input).unwrap(), Some(Report::Ready)));
        assert!(matches!(read(&mut input).unwrap(), Some(Report::Progress(_))));
        let Some(Report::Done(got)) = read(&mut input).unwrap() else { panic!("not done") };
        let was = measured();
        assert_eq!((got.calls, got.elapsed, got.client_cpu), (3, was.elapsed, was.client_cpu));
        assert_eq!((got.client_busy, got.unanswered, got.is_cut_short), (0.25, 7, true));
        assert_eq!((got.latencies, got.parts.len()), (was.latencies, 2));
        assert_eq!((got.parts[1].calls, &got.parts[1].latencies), (2, &was.parts[1].latencies));
        let Some(Report::Failed(why)) = read(&mut input).unwrap() else { panic!("not failed") };
        assert_eq!(why, "a \"reason\"\nof two lines");
        assert!(read(&mut input).unwrap().is_none());
    }

    #[test]
    fn what_is_read_can_be_added() {
        let report = bytes(&Report::Done(measured()));
        let Some(Report::Done(got)) = read(&mut &report[..]).unwrap() else { panic!("not done") };
        let mut sum = Measured::nothing(2).unwrap();
        sum.add(&got).unwrap();
        sum.add(&got).unwrap();
        assert_eq!((sum.calls, sum.latencies.len(), sum.parts[1].calls), (6, 6, 4));
        assert!(sum.quantile_us(1.0) > 99e6);
    }

    #[test]
    fn what_is_cut_or_wrong_is_an_error() {
        let report = bytes(&Report::Done(measured()));
        for len in 1..report.len() {
            assert!(read(&mut &report[..len]).is_err(), "{len} bytes of {}", report.len());
        }
        for text in ["{}\n", "x\n", "{\"report\":\"done\"}\n", "{\"report\":7}\n"] {
            assert!(read(&mut text.as_bytes()).is_err(), "{text}");
        }
        let huge = "{\"report\":\"done\",\"histogram_bytes\":1000000000000}\n";
        assert!(read(&mut huge.as_bytes()).is_err());
    }
}
