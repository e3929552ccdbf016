//! Latencies in words, and on disk: HdrHistogram's log, which keeps all latencies, and the text that
//! plotters read.
//!
//! A log has a line for each histogram: the time it began (seconds since 1970), its duration, its
//! greatest value in milliseconds, and the histogram itself: counts of nanoseconds in HdrHistogram's V2
//! encoding, deflated, in base64. Source: <https://github.com/HdrHistogram/HdrHistogram>,
//! `HistogramLogWriter` and `AbstractHistogram.outputPercentileDistribution`.

use std::fmt::Write;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

/// Most bytes of a log that is read.
const MOST: u64 = 64 << 20;

/// Steps of the text between one minus a quantile and half of that.
const STEPS: u32 = 5;

/// The quantiles that are reported of latencies: the name, and the fraction of the calls that do not
/// exceed it.
pub const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// Returns the microseconds that this fraction of a histogram of nanoseconds does not exceed.
pub fn us(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1000.0
}

/// Returns the quantiles of a histogram of nanoseconds, in words.
pub fn in_words(latencies: &Histogram<u64>) -> String {
    let each = QUANTILES.map(|(name, quantile)| format!("{name} {:.1}", us(latencies, quantile)));
    format!("latency us: {}", each.join(" "))
}

/// The description written beside a histogram.
pub struct About {
    /// The thing that was measured.
    pub words: String,
    /// The duration of the measurement, up to now.
    pub length: Duration,
}

/// Writes a histogram of nanoseconds to `file`, and in text to `file` with `.hgrm` behind.
pub fn write(file: &Path, latencies: &Histogram<u64>, about: &About) -> io::Result<()> {
    let at = |file: &Path| {
        let file = file.display().to_string();
        move |error: io::Error| io::Error::new(error.kind(), format!("{file}: {error}"))
    };
    let text = text_file(file);
    fs::write(file, log(latencies, about)?).map_err(at(file))?;
    fs::write(&text, percentiles(latencies)).map_err(at(&text))
}

/// Returns the path of the text for plotters.
pub fn text_file(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".hgrm");
    name.into()
}

fn log(latencies: &Histogram<u64>, about: &About) -> io::Result<Vec<u8>> {
    let (mut bytes, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let begin = SystemTime::now() - about.length;
    let begin = begin.duration_since(UNIX_EPOCH).unwrap_or_default();
    IntervalLogWriterBuilder::new()
        .add_comment(&format!("rumpring-bench {}: {}", env!("CARGO_PKG_VERSION"), about.words))
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut bytes, &mut serializer)?
        .write_histogram(latencies, begin, about.length, None)
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// Returns microseconds by quantile, as HdrHistogram's plotters read them.
fn percentiles(latencies: &Histogram<u64>) -> String {
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let us = |ns: f64| ns / 1000.0;
    let mut below = 0;
    for step in latencies.iter_quantiles(STEPS) {
        below += step.count_since_last_iteration();
        let value = us(step.value_iterated_to() as f64);
        let quantile = step.quantile_iterated_to();
        // Writing to a string does not fail.
        let _ = write!(text, "{value:12.3} {quantile:2.12} {below:10}");
        let _ = match quantile < 1.0 {
            true => writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile)),
            false => writeln!(text),
        };
    }
    let (mean, deviation) = (us(latencies.mean()), us(latencies.stdev()));
    let (max, count) = (us(latencies.max() as f64), latencies.len());
    let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let _ = writeln!(text, "#[Max     = {max:12.3}, Total count    = {count:12}]");
    text
}

/// Returns the sum of all histograms of a log, and the total time they were recorded. Errors name the
/// file and the line.
pub fn read(file: &Path) -> io::Result<(Histogram<u64>, Duration)> {
    let name = file.display();
    let at = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("{name}{what}"));
    let mut bytes = Vec::new();
    fs::File::open(file)
        .and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes))
        .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    if bytes.len() as u64 > MOST {
        return Err(at(format!(": it has more than {} MiB", MOST >> 20)));
    }
    let mut sum = None;
    let mut length = Duration::ZERO;
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let here = |what| at(format!(":{}: {what}", index + 1));
        if let Some((histogram, lasted)) = read_line(line).map_err(here)? {
            length = length.saturating_add(lasted);
            add(&mut sum, histogram).map_err(here)?;
        }
    }
    Ok((sum.ok_or_else(|| at(": it has no histogram".into()))?, length))
}

/// Returns the histogram of a line, if it has one, and the time it was recorded.
fn read_line(line: &[u8]) -> Result<Option<(Histogram<u64>, Duration)>, String> {
    if !line.ends_with(b"\n") {
        return Err("the line has no end: the file is cut".into());
    }
    let interval = match IntervalLogIterator::new(line).next() {
        Some(Ok(LogEntry::Interval(interval))) => interval,
        Some(Err(_)) => return Err("this is no line of an HdrHistogram log".into()),
        // The line is a comment, or a time that is not needed here.
        _ => return Ok(None),
    };
    let encoded = STANDARD
        .decode(interval.encoded_histogram())
        .map_err(|error| format!("its histogram is not base64: {error}"))?;
    let histogram = Deserializer::new()
        .deserialize(&mut io::Cursor::new(encoded))
        .map_err(|error| format!("its histogram cannot be read: {error}"))?;
    Ok(Some((histogram, interval.duration())))
}

/// Adds a histogram to a sum, which the first one begins.
pub fn add(sum: &mut Option<Histogram<u64>>, more: Histogram<u64>) -> Result<(), String> {
    match sum {
        Some(sum) => sum.add(more).map_err(|error| format!("it does not fit the others: {error}")),
        None => {
            let mut more = more;
            more.auto(true);
            *sum = Some(more);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_max(60_000_000_000, 3).unwrap();
        values.into_iter().for_each(|value| histogram.record(value).unwrap());
        histogram
    }

    fn about() -> About {
        About { words: "a test".into(), length: Duration::from_millis(1500) }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.hlog");
        let written = histogram((1..=1000).map(|n| n * 1000));
        write(&file, &written, &about()).unwrap();
        let (read, length) = read(&file).unwrap();
        assert_eq!(read, written);
        assert_eq!(length, Duration::from_millis(1500));
        let text = fs::read_to_string(text_file(&file)).unwrap();
        let median = text.lines().find(|line| line.contains(" 0.500000000000 ")).unwrap();
        let fields: Vec<&str> = median.split_ascii_whitespace().collect();
        assert_eq!(fields, ["500.223", "0.500000000000", "500", "2.00"], "{text}");
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }

    #[test]
    fn the_histograms_of_a_log_are_added_up() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("both");
        let mut both = log(&histogram([10, 20]), &about()).unwrap();
        // Other writers add this header.
        both.extend(b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\"\n");
        both.extend(log(&histogram([30_000_000]), &about()).unwrap());
        fs::write(&file, &both).unwrap();
        let (read, length) = read(&file).unwrap();
        assert_eq!(read, histogram([10, 20, 30_000_000]));
        assert_eq!(length, Duration::from_secs(3));
    }

    #[test]
    fn histograms_of_other_ranges_are_added() {
        let mut sum = None;
        let mut small = Histogram::new_with_max(1000, 2).unwrap();
        small.record(7).unwrap();
        add(&mut sum, small).unwrap();
        add(&mut sum, histogram([50_000_000_000])).unwrap();
        let sum = sum.unwrap();
        assert_eq!((sum.len(), sum.min()), (2, 7));
        assert!(sum.max() >= 50_000_000_000);
    }

    #[test]
    fn what_is_broken_is_named_with_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("broken");
        let good = log(&histogram([10]), &about()).unwrap();
        let good = String::from_utf8(good).unwrap();
        let line = good.lines().count();
        let no_end = good.trim_end();
        let short = format!("{}\n", &good[..good.len() - 30]);
        for (text, what) in [
            (no_end.into(), format!(":{line}: the line has no end")),
            (short, format!(":{line}: its histogram ")),
            (good.replace("HISTFAAA", "????FAAA"), format!(":{line}: its histogram is not base64")),
            (good.replace("HISTFAAA", "AAAAFAAA"), format!(":{line}: its histogram cannot be")),
            (format!("{good}nonsense\n"), format!(":{}: this is no line", line + 1)),
            ("#nothing but this\n".into(), ": it has no histogram".into()),
        ] {
            fs::write(&file, &text).unwrap();
            let error = read(&file).unwrap_err().to_string();
            let expected = format!("{}{what}", file.display());
            assert!(error.starts_with(&expected), "{error}, expected {expected}: {text}");
        }
        let error = read(&dir.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none: No such file"), "{error}");
    }

    #[test]
    fn a_log_cut_anywhere_is_an_error() {
        let bytes = log(&histogram([10, 1_000_000]), &about()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cut");
        for cut in 0..bytes.len() {
            fs::write(&file, &bytes[..cut]).unwrap();
            assert!(read(&file).is_err(), "cut at {cut}");
        }
    }
}
