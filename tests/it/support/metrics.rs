//! The text that Prometheus reads, as numbers.

/// The samples of one reading.
#[derive(Debug)]
pub(crate) struct Metrics(Vec<Sample>);

#[derive(Debug)]
struct Sample {
    family: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Reads the text format; a line that is no sample fails the test.
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(Sample::parse).collect())
    }

    /// The sum over all samples of the family that carry these labels.
    pub(crate) fn sum(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        self.0.iter().filter(|sample| sample.is(family, labels)).map(|sample| sample.value).sum()
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let (family, labels) = name.split_once('{').unwrap_or((name, ""));
        let labels = labels
            .trim_end_matches('}')
            .split("\",")
            .filter_map(|label| label.split_once("=\""))
            .map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()))
            .collect();
        Self { family: family.to_owned(), labels, value }
    }

    fn is(&self, family: &str, labels: &[(&str, &str)]) -> bool {
        let carries = |(name, value): &(&str, &str)| self.labels.iter().any(|(n, v)| n == name && v == value);
        self.family == family && labels.iter().all(carries)
    }
}
