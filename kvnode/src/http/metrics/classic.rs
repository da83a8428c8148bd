//! From OpenMetrics to the older text format of Prometheus (0.0.4), which more programs read.
//!
//! Samples are the same in both. What is said of them is not: there a counter is described under the name that its
//! sample has, it knows no infos, and no end.

/// The same metrics in the older format.
pub(super) fn from_open_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = "";
    for line in text.lines() {
        if let Some(of) = line.strip_prefix("# HELP ") {
            help = of.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = described(line) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            out.push_str(&format!(
                "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"
            ));
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// Name and type of what follows.
fn described(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_described_as_its_samples_are_named() {
        let open = "# HELP a Some of them.\n# TYPE a counter\na_total{x=\"# y\"} 3\n\
            # HELP b A build.\n# TYPE b info\nb_info{v=\"1\"} 1\n\
            # HELP c Now.\n# TYPE c gauge\n# UNIT c bytes\nc 0.5\n\
            # HELP d Times.\n# TYPE d histogram\nd_sum 1.0\nd_count 1\nd_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let classic = "# HELP a_total Some of them.\n# TYPE a_total counter\na_total{x=\"# y\"} 3\n\
            # HELP b_info A build.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n\
            # HELP c Now.\n# TYPE c gauge\nc 0.5\n\
            # HELP d Times.\n# TYPE d histogram\nd_sum 1.0\nd_count 1\nd_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(from_open_metrics(open), classic);
    }
}
