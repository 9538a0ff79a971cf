//! Names in PromQL expressions: metrics, with the labels and values that they are asked by. It reads words and brackets, and no
//! grammar.

use std::collections::{BTreeMap, BTreeSet};

/// Labels, with values of theirs.
pub type Labels = BTreeMap<String, BTreeSet<String>>;

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Metrics, with the labels in their matchers, and the values that those want: `a="b"` and `a=~"b|c"`.
    pub metrics: BTreeMap<String, Labels>,
    /// Labels that something is grouped or joined by.
    pub labels: BTreeSet<String>,
}

/// Words that are followed by a list of labels.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Words that are no names. Functions need no list: a bracket follows them.
const WORDS: [&str; 20] = [
    "and",
    "or",
    "unless",
    "offset",
    "bool",
    "inf",
    "nan",
    "sum",
    "min",
    "max",
    "avg",
    "count",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "quantile",
    "count_values",
    "atan2",
];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

/// The words and signs of an expression. Numbers, durations, comments and Grafana's variables are left out.
fn tokens(expression: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
        let name = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let length = match first {
            '"' | '\'' | '`' => {
                let end = closing(rest, first);
                found.push(Token::Text(rest[1..end - 1].to_owned()));
                end
            }
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '$' => 1 + rest[1..].find(|c| !is_name(c) && !"{}".contains(c)).unwrap_or(rest.len() - 1),
            _ if first.is_ascii_digit() => name,
            _ if is_name(first) => {
                found.push(Token::Word(rest[..name].to_owned()));
                name
            }
            _ if first.is_whitespace() => first.len_utf8(),
            _ => {
                found.push(Token::Sign(first));
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    found
}

/// The length of a quoted text, quotes included.
fn closing(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// What an expression names. `label_values(metric, label)` of Grafana is understood.
pub fn names(expression: &str) -> Names {
    let tokens = tokens(expression);
    let mut names = Names::default();
    let mut at = 0;
    while at < tokens.len() {
        let Token::Word(word) = &tokens[at] else {
            at += 1;
            continue;
        };
        let next = tokens.get(at + 1);
        if BEFORE_LABELS.contains(&word.as_str()) && next == Some(&Token::Sign('(')) {
            let (labels, end) = list(&tokens, at + 2, ')');
            names.labels.extend(labels);
            at = end;
        } else if word == "label_values" {
            let end = skip_label_values(&tokens, at, &mut names);
            at = end;
        } else if BEFORE_LABELS.contains(&word.as_str())
            || WORDS.contains(&word.to_lowercase().as_str())
            || next == Some(&Token::Sign('('))
        {
            at += 1;
        } else {
            at = metric(&tokens, at, &mut names);
        }
    }
    names
}

/// Takes the metric at `at` in, and yields where it ends.
fn metric(tokens: &[Token], at: usize, names: &mut Names) -> usize {
    let Token::Word(word) = &tokens[at] else { return at + 1 };
    let labels = names.metrics.entry(word.clone()).or_default();
    if tokens.get(at + 1) != Some(&Token::Sign('{')) {
        return at + 1;
    }
    let (_, end) = list(tokens, at + 2, '}');
    let matchers = tokens[at + 2..end - 1].split(|token| *token == Token::Sign(','));
    for matcher in matchers {
        let [Token::Word(label), signs @ .., Token::Text(value)] = matcher else { continue };
        let values = labels.entry(label.clone()).or_default();
        let is_plain =
            |value: &&str| !value.is_empty() && !value.contains(|c: char| "$.*+?()[]\\".contains(c));
        let wanted: Vec<_> = match signs {
            [Token::Sign('=')] => vec![value.as_str()],
            [Token::Sign('='), Token::Sign('~')] => value.split('|').collect(),
            _ => Vec::new(),
        };
        values.extend(wanted.into_iter().filter(is_plain).map(str::to_owned));
    }
    end
}

/// `label_values(metric{...}, label)`, or `label_values(label)`.
fn skip_label_values(tokens: &[Token], at: usize, names: &mut Names) -> usize {
    let inner = metric(tokens, at + 2, names);
    let (labels, end) = list(tokens, inner, ')');
    if let (Token::Word(word), Some(label)) = (&tokens[at + 2], labels.last()) {
        names.metrics.entry(word.clone()).or_default().entry(label.clone()).or_default();
    }
    end
}

/// The words up to the closing sign, and where it ends.
fn list(tokens: &[Token], from: usize, closing: char) -> (Vec<String>, usize) {
    let length =
        tokens[from..].iter().position(|token| *token == Token::Sign(closing)).unwrap_or(tokens.len() - from);
    let words = tokens[from..from + length].iter().filter_map(|token| match token {
        Token::Word(word) => Some(word.clone()),
        _ => None,
    });
    (words.collect(), (from + length + 1).min(tokens.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, metrics: &[(&str, &[&str])], labels: &[&str]) {
        let found = names(expression);
        let shown = |(name, labels): (&String, &Labels)| {
            let labels = labels.iter().map(|(label, values)| match values.len() {
                0 => label.clone(),
                _ => format!("{label}={}", values.iter().cloned().collect::<Vec<_>>().join("|")),
            });
            (name.clone(), labels.collect::<Vec<_>>())
        };
        let found_metrics: Vec<_> = found.metrics.iter().map(shown).collect();
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let metrics: Vec<_> =
            metrics.iter().map(|(name, labels)| ((*name).to_owned(), own(labels))).collect();
        assert_eq!(found_metrics, metrics, "{expression}");
        assert_eq!(found.labels.into_iter().collect::<Vec<_>>(), own(labels), "{expression}");
    }

    #[test]
    fn metrics_and_labels_are_told_from_all_else() {
        check("a", &[("a", &[])], &[]);
        check("a:b:rate5m > 14.4 and on (job) c == 1e3", &[("a:b:rate5m", &[]), ("c", &[])], &["job"]);
        check(
            "sum by (job, le) (rate(a_bucket{le=~\"10(\\\\.0)?\", x!='y}'}[5m] offset 1h))",
            &[("a_bucket", &["le", "x"])],
            &["job", "le"],
        );
        check("sum(a) without (b)", &[("a", &[])], &["b"]);
        check(
            "sum by(state)(rate(a{i=~\"$instance\"}[$__rate_interval])) # not b",
            &[("a", &["i"])],
            &["state"],
        );
        check(
            "a * on (x) group_left (y) b or Inf * count(c)",
            &[("a", &[]), ("b", &[]), ("c", &[])],
            &["x", "y"],
        );
        check("topk(3, a) == bool 2 unless max(b) / ${x}", &[("a", &[]), ("b", &[])], &[]);
        check("label_values(a{b=\"c\"}, d)", &[("a", &["b=c", "d"])], &[]);
        check("-a{} + min_over_time(b[1d:5m]) @ end()", &[("a", &[]), ("b", &[])], &[]);
        check("histogram_quantile(0.95, sum by (le) (rate(a_bucket[3d])))", &[("a_bucket", &[])], &["le"]);
        check(
            "a{b=\"c\", d=~\"e|f\", g!=\"h\", i=\"\"} / a{b=\"j\"}",
            &[("a", &["b=c|j", "d=e|f", "g", "i"])],
            &[],
        );
    }
}
