//! The text of `/metrics`: the Prometheus text format, version 0.0.4, which every collector reads.

use std::fmt::{Display, Write as _};

/// Families of samples, one after the other. A name, a label's name and a help are ours, and need no escaping.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// What the text is, for the header of an answer.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// A number that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// A condition: 1 where it holds, else 0.
    pub fn flag(&mut self, name: &str, help: &str, holds: bool) {
        self.gauge(name, help, u8::from(holds));
    }

    /// A number that only grows, until we start again; the name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// Several of these, told apart by labels.
    pub fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, &'static str); N], u64)>,
    ) {
        self.family(name, "counter", help);
        for (labels, value) in samples {
            self.sample(name, &labels, value);
        }
    }

    /// Which of these it is: 1 for that one, 0 for the others, so that none is missing when it is asked for.
    pub fn state(&mut self, name: &str, help: &str, label: &str, all: &[&str], now: &str) {
        self.family(name, "gauge", help);
        for state in all {
            self.sample(name, &[(label, state)], u8::from(*state == now));
        }
    }

    /// What it is, in words: the value is always 1.
    pub fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) {
        self.family(name, "gauge", help);
        self.sample(name, labels, 1);
    }

    /// All of it.
    pub fn into_text(self) -> String {
        self.text
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a text does not fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_as_the_format_wants_it() {
        let mut metrics = Exposition::default();
        metrics.counter("a_total", "How many.", 3);
        metrics.state("b", "Which.", "state", &["on", "off"], "off");
        metrics.info("c_info", "What.", &[("name", "x\"y\\z\n"), ("other", "")]);
        metrics.counters("d_total", "Each.", [([("probe", "liveness"), ("answer", "pass")], 7)]);
        let expected = "\
# HELP a_total How many.
# TYPE a_total counter
a_total 3
# HELP b Which.
# TYPE b gauge
b{state=\"on\"} 0
b{state=\"off\"} 1
# HELP c_info What.
# TYPE c_info gauge
c_info{name=\"x\\\"y\\\\z\\n\",other=\"\"} 1
# HELP d_total Each.
# TYPE d_total counter
d_total{probe=\"liveness\",answer=\"pass\"} 7
";
        assert_eq!(metrics.into_text(), expected);
    }
}
