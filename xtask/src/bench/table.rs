// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table that is printed: what a row measured, its goal, and whether it was met.

/// Several measurements of the same thing, less is better.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) least: f64,
    pub(super) median: f64,
}

impl Sample {
    /// Of none, not a number.
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self {
            least: at(0),
            median: at(values.len() / 2),
        }
    }
}

/// What a row says of lp-run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Figure {
    /// Milliseconds more than bare.
    Added(f64),
    /// A ratio to another arm.
    Ratio(f64),
    /// Per cent more than another arm.
    Percent(f64),
    /// A number of its own.
    Plain(f64, &'static str),
}

impl Figure {
    fn value(self) -> f64 {
        match self {
            Self::Added(value) | Self::Ratio(value) | Self::Percent(value) => value,
            Self::Plain(value, _) => value,
        }
    }

    fn text(self, value: f64) -> String {
        match self {
            Self::Added(_) => format!("+{value:.2} ms"),
            Self::Ratio(_) => format!("{value:.2}x"),
            Self::Percent(_) => format!("{value:+.1} %"),
            Self::Plain(_, unit) => format!("{value:.2} {unit}"),
        }
    }
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing: the figure is for information.
    None,
}

impl Goal {
    fn met_by(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(value <= most),
            Self::AtLeast(least) => Some(value >= least),
            Self::None => None,
        }
    }
}

/// A line of the table.
pub(super) struct Row<'a> {
    pub(super) what: &'a str,
    /// Bare, floor and lp-run, as far as there are such arms.
    pub(super) arms: [Option<String>; 3],
    pub(super) figure: Figure,
    /// The same from the best of each arm, which others on the machine disturb least.
    pub(super) best: Option<f64>,
    pub(super) goal: Goal,
}

/// The head of the table, in Markdown.
pub(super) fn head() {
    println!("\n| what | bare | floor | lp-run | median | best | goal | |");
    println!("|---|---|---|---|---|---|---|---|");
}

impl Row<'_> {
    pub(super) fn print(&self) {
        println!("{}", self.line());
    }

    fn line(&self) -> String {
        let arms = self.arms.each_ref().map(|arm| arm.as_deref().unwrap_or(""));
        let figure = self.figure;
        let best = self.best.map(|best| figure.text(best)).unwrap_or_default();
        let goal = match self.goal {
            Goal::AtMost(most) => format!("at most {}", figure.text(most)),
            Goal::AtLeast(least) => format!("at least {}", figure.text(least)),
            Goal::None => String::new(),
        };
        let mark = match self.goal.met_by(figure.value()) {
            Some(true) => "ok",
            Some(false) => "misses",
            None => "",
        };
        format!(
            "| {} | {} | {} | {} | {} | {best} | {goal} | {mark} |",
            self.what,
            arms[0],
            arms[1],
            arms[2],
            figure.text(figure.value()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_an_outlier() {
        let sample = Sample::of(vec![3.0, 1.0, 900.0]);
        assert_eq!((sample.least, sample.median), (1.0, 3.0));
        assert!(Sample::of(Vec::new()).median.is_nan());
    }

    #[test]
    fn a_figure_is_held_against_its_goal() {
        let row = |figure, goal| Row {
            what: "x",
            arms: [None, None, Some("7 ms".to_owned())],
            figure,
            best: None,
            goal,
        };
        let line = row(Figure::Added(3.5), Goal::AtMost(3.0)).line();
        assert_eq!(
            line,
            "| x |  |  | 7 ms | +3.50 ms |  | at most +3.00 ms | misses |"
        );
        let line = row(Figure::Ratio(0.99), Goal::AtLeast(0.98)).line();
        assert!(line.ends_with("| at least 0.98x | ok |"), "{line}");
        let unknown = row(Figure::Ratio(f64::NAN), Goal::AtMost(1.0)).line();
        assert!(unknown.ends_with("misses |"), "{unknown}");
    }
}
