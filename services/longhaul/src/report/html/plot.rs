//! Plots as inline SVG: lines over time with marks, and stacked bars.

use std::fmt::Write;

use longhaul_core::report::Mark;

use super::page::escape;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;

/// How values become heights.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scale {
    /// From 0 to this.
    Linear(f64),
    /// Decades between both, which are greater than 0.
    Log(f64, f64),
}

impl Scale {
    /// 0 at the bottom, 1 at the top.
    fn share(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear(max) => value / max,
            Self::Log(min, max) => (value.max(min) / min).ln() / (max / min).ln(),
        };
        share.clamp(0.0, 1.0)
    }

    /// Values worth a line.
    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear(max) => (0..=4_u32).map(|n| max * f64::from(n) / 4.0).collect(),
            Self::Log(min, max) => std::iter::successors(Some(min), |tick| Some(tick * 10.0))
                .take_while(|tick| *tick <= max * 1.001)
                .collect(),
        }
    }

    /// Decades that hold every value.
    pub(super) fn decades(values: impl Iterator<Item = f64>) -> Self {
        let max = values.fold(10.0, f64::max);
        Self::Log(1.0, 10_f64.powf(max.log10().ceil()))
    }
}

/// One line of a plot; a gap where there is no point.
pub(super) struct Series {
    /// Its name.
    pub(super) name: String,
    /// Points in order of time.
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over the seconds of a run.
pub(super) struct TimePlot<'a> {
    /// What is plotted, with its unit.
    pub(super) title: &'a str,
    /// Length of the run, seconds.
    pub(super) seconds: f64,
    /// How values become heights.
    pub(super) scale: Scale,
    /// The unit behind a tick.
    pub(super) unit: &'a str,
    /// The lines.
    pub(super) series: Vec<Series>,
    /// Faults, phases, regimes.
    pub(super) marks: &'a [Mark],
    /// Height in units of the drawing.
    pub(super) height: f64,
}

impl TimePlot<'_> {
    fn x(&self, second: f64) -> f64 {
        LEFT + (second / self.seconds.max(1e-9)).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        TOP + (1.0 - self.scale.share(value)) * (self.height - TOP - BOTTOM)
    }

    /// The plot with its title and its legend.
    pub(super) fn render(&self) -> String {
        let mut svg = format!(
            "<h3>{}</h3><svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">",
            escape(self.title),
            self.height,
            escape(self.title)
        );
        self.frame(&mut svg);
        for mark in self.marks {
            self.mark(&mut svg, mark);
        }
        for (index, series) in self.series.iter().enumerate() {
            self.line(&mut svg, index, series);
        }
        svg.push_str("</svg>");
        svg.push_str(&legend(self.series.iter().map(|series| series.name.as_str())));
        svg
    }

    fn frame(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, self.height - BOTTOM);
        for tick in self.scale.ticks() {
            let y = self.y(tick);
            // Writing to a String cannot fail.
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"dim\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick:.0}{}</text>",
                LEFT - 6.0,
                y + 4.0,
                self.unit
            );
        }
        let step = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0]
            .into_iter()
            .find(|step| self.seconds / step <= 12.0)
            .unwrap_or(self.seconds.max(1.0));
        let mut second = 0.0;
        while second <= self.seconds + 1e-6 {
            let x = self.x(second);
            let _ = write!(
                svg,
                "<text class=\"dim\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second:.0} s</text>",
                bottom + 16.0
            );
            second += step;
        }
        let _ = write!(svg, "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>");
    }

    fn mark(&self, svg: &mut String, mark: &Mark) {
        if !(0.0..=self.seconds).contains(&mark.at_s) {
            return;
        }
        let class = match mark.kind.as_str() {
            kind @ ("fault" | "heal" | "phase" | "regime") => kind,
            _ => "phase",
        };
        let x = self.x(mark.at_s);
        let _ = write!(
            svg,
            "<g><title>{:.2} s: {}</title><line class=\"mark {class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{TOP}\" r=\"4\"/></g>",
            mark.at_s,
            escape(&mark.text),
            self.height - BOTTOM
        );
    }

    fn line(&self, svg: &mut String, index: usize, series: &Series) {
        let mut path = String::new();
        let mut last: Option<f64> = None;
        for (second, value) in &series.points {
            // Two points further apart than a second and a half have a gap between them.
            let command = if last.is_some_and(|last| second - last < 1.5) { 'L' } else { 'M' };
            let _ = write!(path, "{command}{:.1} {:.1}", self.x(*second), self.y(*value));
            last = Some(*second);
        }
        let _ = write!(
            svg,
            "<path class=\"curve\" style=\"stroke:var(--s{})\" d=\"{path}\"><title>{}</title></path>",
            index % 8,
            escape(&series.name)
        );
    }
}

/// One bar of several parts.
pub(super) struct Bar {
    /// Its name.
    pub(super) name: String,
    /// The parts, in order; the names are the same for every bar.
    pub(super) parts: Vec<f64>,
    /// What stands at its end.
    pub(super) text: String,
}

/// Horizontal bars of parts, with one legend.
pub(super) fn stacked_bars(title: &str, parts: &[&str], bars: &[Bar], unit: &str) -> String {
    const ROW: f64 = 30.0;
    const NAME: f64 = 200.0;
    const TEXT: f64 = 130.0;
    let longest = bars.iter().map(|bar| bar.parts.iter().sum::<f64>()).fold(1e-9, f64::max);
    let height = ROW * bars.len() as f64 + 6.0;
    let mut svg = format!(
        "<h3>{}</h3><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        escape(title),
        escape(title)
    );
    for (row, bar) in bars.iter().enumerate() {
        let top = ROW * row as f64 + 4.0;
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            NAME - 8.0,
            top + 15.0,
            escape(&bar.name)
        );
        let mut x = NAME;
        for (index, part) in bar.parts.iter().enumerate() {
            let width = part.max(0.0) / longest * (WIDTH - NAME - TEXT);
            let name = parts.get(index).copied().unwrap_or("");
            let _ = write!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"20\" style=\"fill:var(--s{})\">\
                 <title>{}: {part:.0} {unit}</title></rect>",
                index % 8,
                escape(name)
            );
            x += width;
        }
        let _ = write!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", x + 8.0, top + 15.0, escape(&bar.text));
    }
    svg.push_str("</svg>");
    if parts.len() > 1 {
        svg.push_str(&legend(parts.iter().copied()));
    }
    svg
}

fn legend<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut html = String::from("<div class=\"legend\">");
    for (index, name) in names.enumerate() {
        let _ = write!(html, "<span><i style=\"background:var(--s{})\"></i>{}</span>", index % 8, escape(name));
    }
    html.push_str("</div>");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_maps_its_bounds_to_the_edges() {
        for scale in [Scale::Linear(100.0), Scale::Log(1.0, 1000.0)] {
            assert!((scale.share(scale.ticks()[0]) - 0.0).abs() < 1e-9);
            assert!((scale.share(*scale.ticks().last().unwrap()) - 1.0).abs() < 1e-9);
        }
        assert_eq!(Scale::Log(1.0, 1000.0).ticks().len(), 4);
        assert!((Scale::Log(1.0, 100.0).share(10.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn seconds_without_a_point_are_a_gap() {
        let plot = TimePlot {
            title: "t",
            seconds: 10.0,
            scale: Scale::Linear(100.0),
            unit: "",
            series: vec![Series { name: "a".into(), points: vec![(0.0, 1.0), (1.0, 1.0), (5.0, 1.0), (6.0, 1.0)] }],
            marks: &[],
            height: 200.0,
        };
        let svg = plot.render();
        let path = svg.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 2), "{path}");
    }
}
