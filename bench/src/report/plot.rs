//! Draws charts: lines with points, as SVG.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::compare::Spread;

/// Pixels of a chart.
const SIZE: (u32, u32) = (560, 300);

/// Colors for lines that color-blind readers can tell apart, too (Okabe and Ito).
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

/// The error of a drawing; drawing into memory hardly fails.
pub type Error = Box<dyn std::error::Error>;

pub struct Chart<'a> {
    /// The texts below the x axis, and their places.
    pub ticks: Vec<(f64, String)>,
    /// The quantities on the axes.
    pub x: &'a str,
    pub y: &'a str,
    pub axis: Axis,
    pub lines: Vec<Line>,
}

/// The scale of the y axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    FromZero,
    Logarithmic,
}

pub struct Line {
    /// The number of the line's color: lines of one number have one color, in all charts.
    pub color: usize,
    pub points: Vec<Point>,
}

pub struct Point {
    pub x: f64,
    pub spread: Spread,
}

/// Returns a color, for CSS.
pub fn color_name(index: usize) -> String {
    let RGBColor(red, green, blue) = color(index);
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn color(index: usize) -> RGBColor {
    COLORS[index % COLORS.len()]
}

/// The most ticks of a y axis.
const MOST_TICKS: usize = 8;

impl Axis {
    /// Returns the place of a number on the axis.
    fn place(self, number: f64) -> f64 {
        match self {
            Axis::FromZero => number,
            Axis::Logarithmic => number.ln(),
        }
    }

    /// Returns round numbers, and their places.
    fn ticks(self, low: f64, high: f64) -> Vec<(f64, String)> {
        let numbers = match self {
            Axis::FromZero => {
                let fits = |step: &f64| high / step < MOST_TICKS as f64;
                let step = round_numbers(high / 100.0, high * 10.0).into_iter().find(fits);
                let step = step.unwrap_or(1.0);
                (0..MOST_TICKS).map(|n| n as f64 * step).filter(|n| *n <= high * 1.05).collect()
            }
            Axis::Logarithmic => {
                let mut numbers = round_numbers(low * 0.8, high * 1.25);
                if numbers.len() > MOST_TICKS {
                    numbers.retain(|number| (number.log10() - number.log10().round()).abs() < 1e-9);
                }
                numbers
            }
        };
        numbers.into_iter().map(|number| (self.place(number), short(number))).collect()
    }
}

/// Returns one, two and five times the powers of ten within these bounds.
fn round_numbers(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().floor() as i32);
    let numbers = (first..=last).flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * 10f64.powi(power)));
    numbers.filter(|number| (low..=high).contains(number)).collect()
}

impl Chart<'_> {
    /// Draws the chart, as an element for a page.
    pub fn svg(&self) -> Result<String, Error> {
        let spreads = self.lines.iter().flat_map(|line| line.points.iter().map(|p| p.spread));
        let (low, high) = spreads.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), spread| {
            (low.min(spread.min), high.max(spread.max))
        });
        let y_ticks = self.axis.ticks(low, high);
        let y_range = match self.axis {
            Axis::FromZero => 0.0..high * 1.05,
            Axis::Logarithmic => (low * 0.8).ln()..(high * 1.25).ln(),
        };
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .margin_right(20)
            .x_label_area_size(36)
            .y_label_area_size(62)
            .build_cartesian_2d(self.x_axis(), Ticks { range: y_range, ticks: &y_ticks })?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .axis_style(BLACK.mix(0.5))
            .label_style(("sans-serif", 12))
            .axis_desc_style(("sans-serif", 12))
            .draw()?;
        let y = |number| self.axis.place(number);
        for line in &self.lines {
            let color = color(line.color);
            for Point { x, spread } in &line.points {
                let ends = [(*x, y(spread.min)), (*x, y(spread.max))];
                chart.draw_series(LineSeries::new(ends, color.mix(0.5)))?;
            }
            let medians = || line.points.iter().map(|p| (p.x, y(p.spread.median)));
            chart.draw_series(LineSeries::new(medians(), color.stroke_width(2)))?;
            chart.draw_series(medians().map(|at| Circle::new(at, 3, color.filled())))?;
        }
        area.present()?;
        drop(chart);
        drop(area);
        Ok(svg)
    }

    /// Returns the x axis: from the first tick to the last, and a little around them.
    fn x_axis(&self) -> Ticks<'_> {
        let first = self.ticks.iter().map(|(x, _)| *x).fold(f64::MAX, f64::min);
        let last = self.ticks.iter().map(|(x, _)| *x).fold(f64::MIN, f64::max);
        let around = (last - first).max(1.0) * 0.04;
        Ticks { range: first - around..last + around, ticks: &self.ticks }
    }
}

/// An axis with a tick and a text for each point.
struct Ticks<'a> {
    range: Range<f64>,
    ticks: &'a [(f64, String)],
}

impl Ranged for Ticks<'_> {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let part = (value - self.range.start) / (self.range.end - self.range.start);
        start + (part * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(x, _)| *x).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Ticks<'_> {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|(x, _)| x == value);
        tick.map_or(String::new(), |(_, text)| text.clone())
    }
}

/// Formats a number in few letters.
fn short(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{}M", n / 1e6),
        n if n >= 1e3 => format!("{}k", n / 1e3),
        // Rounding removes the noise of powers of ten below one.
        n => format!("{}", (n * 1e6).round() / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let all = [0.0, 0.5, 20.0, 1500.0, 200_000.0, 1_500_000.0].map(short);
        assert_eq!(all, ["0", "0.5", "20", "1.5k", "200k", "1.5M"]);
    }

    #[test]
    fn axes_have_few_and_round_ticks() {
        let texts = |axis: Axis, low, high| -> Vec<String> {
            axis.ticks(low, high).into_iter().map(|(_, text)| text).collect()
        };
        let linear = texts(Axis::FromZero, 0.0, 330_000.0);
        assert_eq!(linear, ["0", "50k", "100k", "150k", "200k", "250k", "300k"]);
        assert_eq!(texts(Axis::FromZero, 0.0, 0.9), ["0", "0.2", "0.4", "0.6", "0.8"]);
        assert_eq!(texts(Axis::Logarithmic, 17.0, 190.0), ["20", "50", "100", "200"]);
        assert_eq!(texts(Axis::Logarithmic, 17.0, 90_000.0), ["100", "1k", "10k", "100k"]);
        assert!(texts(Axis::FromZero, 0.0, f64::MIN_POSITIVE).len() <= MOST_TICKS);
    }

    #[test]
    fn each_line_has_its_points() {
        let spread = |median| Spread { median, min: median / 2.0, max: median * 2.0 };
        let line = |color, y| Line {
            color,
            points: vec![
                Point { x: 0.0, spread: spread(y) },
                Point { x: 1.0, spread: spread(2.0 * y) },
            ],
        };
        for axis in [Axis::FromZero, Axis::Logarithmic] {
            let ticks = vec![(0.0, "one".into()), (1.0, "two".into())];
            let lines = vec![line(0, 10.0), line(1, 1000.0)];
            let svg = Chart { ticks, x: "x", y: "y", axis, lines }.svg().unwrap();
            for color in 0..2 {
                let fill = format!("fill=\"{}\"", color_name(color).to_uppercase());
                assert_eq!(svg.matches(&fill).count(), 2, "{fill}: {svg}");
            }
            assert!(svg.contains("one") && svg.contains("two"), "{svg}");
        }
    }

    #[test]
    fn a_chart_of_one_point_can_be_drawn() {
        let spread = Spread { median: 0.0, min: 0.0, max: 0.0 };
        let line = Line { color: 0, points: vec![Point { x: 0.0, spread }] };
        let ticks = vec![(0.0, "one".into())];
        let svg = Chart { ticks, x: "x", y: "y", axis: Axis::FromZero, lines: vec![line] }.svg();
        assert!(svg.unwrap().contains("<circle"));
    }
}
