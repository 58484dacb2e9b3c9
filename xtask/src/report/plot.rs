//! Plots as SVG: bars side by side or stacked, and lines. Colours are classes of the page's style
//! sheet, so that a plot follows its light or dark scheme.

use std::fmt::Write as _;

use super::html::escape;
use super::number::{digits, round, short};

/// Size of the drawing, in its own units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 340.0;
/// Room around the plotted area: top, right, bottom, left.
const MARGIN: [f64; 4] = [16.0, 24.0, 46.0, 70.0];
/// Colours of the style sheet.
const COLOURS: usize = 8;

/// Values of one colour.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// Its name in the legend.
    pub(crate) name: String,
    /// One value for each label; NaN: none.
    pub(crate) values: Vec<f64>,
}

/// A line's points.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Its name in the legend.
    pub(crate) name: String,
    /// x and y, x rising.
    pub(crate) points: Vec<(f64, f64)>,
}

/// How bars that share a label stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bars {
    /// Beside each other.
    Grouped,
    /// On top of each other.
    Stacked,
}

/// One axis of a line plot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis<'a> {
    /// What it counts, with the unit.
    pub(crate) label: &'a str,
    /// Powers of ten at equal distances.
    pub(crate) log: bool,
}

/// Bars over labels, from zero.
pub(crate) fn bars(labels: &[String], series: &[Series], form: Bars, y_label: &str) -> String {
    let value = |one: &Series, index: usize| {
        let value = one.values.get(index).copied().unwrap_or(f64::NAN);
        if value.is_finite() {
            value.max(0.0)
        } else {
            0.0
        }
    };
    let top = (0..labels.len()).map(|index| {
        let all = series.iter().map(|one| value(one, index));
        match form {
            Bars::Grouped => all.fold(0.0, f64::max),
            Bars::Stacked => all.sum(),
        }
    });
    let scale = Scale::linear(top.fold(0.0, f64::max));
    let mut svg = open(y_label);
    grid(&mut svg, &scale);
    let slot = plotted_width() / labels.len().max(1) as f64;
    let across = match form {
        Bars::Grouped => series.len().max(1),
        Bars::Stacked => 1,
    };
    let width = (slot * 0.74 / across as f64).min(46.0);
    for (index, label) in labels.iter().enumerate() {
        let middle = MARGIN[3] + slot * (index as f64 + 0.5);
        let mut below = 0.0;
        for (place, one) in series.iter().enumerate() {
            let (value, at) = (value(one, index), place % COLOURS);
            let (from, left) = match form {
                Bars::Stacked => (below, middle - width / 2.0),
                Bars::Grouped => {
                    let offset = place as f64 - across as f64 / 2.0;
                    (0.0, middle + offset * width)
                }
            };
            below += value;
            let (y, bottom) = (scale.y(from + value), scale.y(from));
            let text = escape(&format!("{label}, {}: {}", one.name, short(value)));
            let (width, height) = (width - 1.0, bottom - y);
            let _ = write!(
                svg,
                "<rect class=\"f{at}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                 height=\"{height:.1}\" rx=\"1.5\"><title>{text}</title></rect>"
            );
        }
        if form == Bars::Stacked || series.len() == 1 {
            let y = scale.y(below) - 4.0;
            let _ = write!(
                svg,
                "<text class=\"value\" x=\"{middle:.1}\" y=\"{y:.1}\">{}</text>",
                short(below)
            );
        }
        below_axis(&mut svg, middle, label);
    }
    close(svg, series.iter().map(|one| one.name.as_str()))
}

/// Lines with a mark at each point.
pub(crate) fn lines(all: &[Line], x: Axis<'_>, y: Axis<'_>, marks: bool) -> String {
    let points = || all.iter().flat_map(|line| &line.points);
    let finite = |value: &f64| value.is_finite();
    let [xs, ys] = [
        Scale::of(points().map(|point| point.0).filter(finite), x.log),
        Scale::of(points().map(|point| point.1).filter(finite), y.log),
    ];
    let mut svg = open(y.label);
    grid(&mut svg, &ys);
    for tick in xs.ticks() {
        below_axis(&mut svg, xs.x(tick), &round(tick));
    }
    let middle = MARGIN[3] + plotted_width() / 2.0;
    let _ = write!(
        svg,
        "<text class=\"axis\" x=\"{middle:.1}\" y=\"{:.1}\">{}</text>",
        HEIGHT - 6.0,
        escape(x.label)
    );
    for (index, line) in all.iter().enumerate() {
        let at = index % COLOURS;
        let place = |(px, py): &(f64, f64)| (xs.x(*px), ys.y(*py));
        let path: Vec<String> = line
            .points
            .iter()
            .filter(|point| point.1.is_finite())
            .map(place)
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = write!(
            svg,
            "<polyline class=\"s{at}\" points=\"{}\"/>",
            path.join(" ")
        );
        for point in line.points.iter().filter(|point| point.1.is_finite()) {
            let (cx, cy) = place(point);
            let text = format!("{}: {} at {}", line.name, short(point.1), short(point.0));
            let radius = if marks { 3.5 } else { 1.5 };
            let _ = write!(
                svg,
                "<circle class=\"f{at}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"{radius}\">\
                 <title>{}</title></circle>",
                escape(&text)
            );
        }
    }
    close(svg, all.iter().map(|line| line.name.as_str()))
}

const fn plotted_width() -> f64 {
    WIDTH - MARGIN[1] - MARGIN[3]
}

const fn plotted_height() -> f64 {
    HEIGHT - MARGIN[0] - MARGIN[2]
}

fn open(y_label: &str) -> String {
    let middle = MARGIN[0] + plotted_height() / 2.0;
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\
         <text class=\"axis\" transform=\"translate(13 {middle:.1}) rotate(-90)\">{}</text>",
        escape(y_label)
    )
}

/// The end of the drawing, and the legend below it.
fn close<'a>(mut svg: String, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let bottom = HEIGHT - MARGIN[2];
    let _ = write!(
        svg,
        "<line class=\"base\" x1=\"{}\" x2=\"{}\" y1=\"{bottom}\" y2=\"{bottom}\"/></svg>",
        MARGIN[3],
        WIDTH - MARGIN[1]
    );
    if names.len() > 1 {
        svg += "<ul class=\"legend\">";
        for (index, name) in names.into_iter().enumerate() {
            let at = index % COLOURS;
            let _ = write!(svg, "<li><i class=\"b{at}\"></i>{}</li>", escape(name));
        }
        svg += "</ul>";
    }
    svg
}

fn grid(svg: &mut String, scale: &Scale) {
    let (left, right) = (MARGIN[3], WIDTH - MARGIN[1]);
    for tick in scale.ticks() {
        let y = scale.y(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick left\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left - 7.0,
            y + 4.0,
            round(tick)
        );
    }
}

/// A label below the axis; its second line after a newline.
fn below_axis(svg: &mut String, x: f64, label: &str) {
    for (line, text) in label.split('\n').enumerate() {
        let y = HEIGHT - MARGIN[2] + 17.0 + line as f64 * 14.0;
        let text = escape(text);
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"
        );
    }
}

/// From values to places.
#[derive(Debug)]
struct Scale {
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    /// From zero to a round number at or above `top`.
    fn linear(top: f64) -> Self {
        let top = if top > 0.0 { top } else { 1.0 };
        let step = step(top);
        Self {
            from: 0.0,
            to: (top / step).ceil() * step,
            log: false,
        }
    }

    fn of(values: impl Iterator<Item = f64>, log: bool) -> Self {
        let values: Vec<f64> = values.filter(|value| !log || *value > 0.0).collect();
        let top = values.iter().copied().fold(0.0, f64::max);
        if !log || top <= 0.0 {
            return Self::linear(top);
        }
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let (from, mut to) = (power(low.log10().floor()), power(top.log10().ceil()));
        if to <= from {
            to = from * 10.0;
        }
        Self { from, to, log }
    }

    /// Share of the way from start to end.
    fn share(&self, value: f64) -> f64 {
        if self.log {
            let value = value.max(self.from);
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        }
    }

    fn x(&self, value: f64) -> f64 {
        MARGIN[3] + self.share(value) * plotted_width()
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - MARGIN[2] - self.share(value) * plotted_height()
    }

    fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        let mut tick = self.from;
        let step = step(self.to);
        while tick <= self.to * 1.000_001 {
            ticks.push(tick);
            tick = if self.log { tick * 10.0 } else { tick + step };
        }
        ticks
    }
}

fn power(exponent: f64) -> f64 {
    10_f64.powf(exponent)
}

/// A round step of which four to eight make `top`.
fn step(top: f64) -> f64 {
    let rough = top / 5.0;
    let unit = power(rough.log10().floor());
    let choices = [1.0, 2.0, 2.5, 5.0, 10.0];
    let chosen = choices.into_iter().find(|choice| choice * unit >= rough);
    chosen.unwrap_or(10.0) * unit
}

/// A ratio as `0.77×`.
pub(crate) fn times(ratio: f64) -> String {
    format!("{}×", digits(ratio))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::html::balanced;

    #[test]
    fn scales_end_at_round_numbers() {
        for (top, end, ticks) in [
            (9.7, 10.0, 6),
            (430.0, 500.0, 6),
            (1.0, 1.0, 6),
            (0.0, 1.0, 6),
        ] {
            let scale = Scale::linear(top);
            assert!((scale.to - end).abs() < 1e-9, "{top}: {scale:?}");
            assert_eq!(scale.ticks().len(), ticks, "{top}");
        }
        let scale = Scale::of([3.0, 4_000.0].into_iter(), true);
        assert_eq!(scale.ticks().len(), 5, "{scale:?}");
        assert!((scale.y(1.0) - (HEIGHT - MARGIN[2])).abs() < 1e-9);
    }

    #[test]
    fn plots_are_well_formed_and_hold_every_value() {
        let labels = ["64 <B>".to_owned(), "IMIX".to_owned()];
        let series = |name: &str| Series {
            name: name.to_owned(),
            values: vec![1.0, f64::NAN],
        };
        let all = [series("a & b"), series("c")];
        for form in [Bars::Grouped, Bars::Stacked] {
            let svg = bars(&labels, &all, form, "cycles");
            assert_eq!(balanced(&svg), Ok(()), "{svg}");
            assert_eq!(svg.matches("<rect").count(), 4);
            assert!(!svg.contains("NaN"));
        }
        let line = Line {
            name: "one".to_owned(),
            points: vec![(1.0, 10.0), (1e6, 20.0), (2e6, f64::NAN)],
        };
        let axis = |log| Axis { label: "x", log };
        let svg = lines(&[line], axis(true), axis(false), true);
        assert_eq!(balanced(&svg), Ok(()), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(!lines(&[], axis(false), axis(false), true).contains("NaN"));
    }
}
