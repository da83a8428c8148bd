//! What came of comparing one node: for people a line of a table, else an object.

use kvclient::{Address, shard_map::Shard};

use crate::{
    exit::Exit,
    failure::Failure,
    out::{Format, Out},
    text::escaped,
};

/// What is said of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is what the others are compared with; says what it has.
    Primary(String),
    /// The same as the primary.
    Equal(String),
    /// Something else than the primary.
    Differs(String),
    /// Nobody knows; says why.
    NotCompared(String),
}

/// A node, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compared {
    pub(crate) shard: String,
    pub(crate) node: Address,
    pub(crate) verdict: Verdict,
}

impl Compared {
    pub(crate) fn new(shard: &Shard, node: &Address, verdict: Verdict) -> Self {
        Self {
            shard: shard.name.clone(),
            node: node.clone(),
            verdict,
        }
    }

    /// A whole shard of which nothing is known for one reason.
    pub(crate) fn none(shard: &Shard, why: &str) -> Vec<Self> {
        let nodes = shard.nodes();
        nodes
            .map(|node| Self::new(shard, &node.address, Verdict::NotCompared(why.to_owned())))
            .collect()
    }
}

impl Verdict {
    fn name(&self) -> &'static str {
        match self {
            Self::Primary(_) => "primary",
            Self::Equal(_) => "equal",
            Self::Differs(_) => "differs",
            Self::NotCompared(_) => "not_compared",
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Primary(text)
            | Self::Equal(text)
            | Self::Differs(text)
            | Self::NotCompared(text) => text,
        }
    }
}

/// Prints all verdicts.
pub(crate) fn print(all: &[Compared], out: &mut Out) -> Result<(), Failure> {
    let width = |text: &dyn Fn(&Compared) -> usize| all.iter().map(text).max().unwrap_or(0);
    let shard_width = width(&|one| one.shard.len());
    let node_width = width(&|one| one.node.to_string().len());
    for Compared {
        shard,
        node,
        verdict,
    } in all
    {
        match out.format {
            Format::Json => out.json(|line| {
                line.field("shard", shard)
                    .field("node", node.to_string())
                    .field("verdict", verdict.name())
                    .field("message", verdict.text())
            })?,
            Format::Text => out.text(&format!(
                "{shard:<shard_width$}  {:<node_width$}  {:<12}  {}\n",
                node.to_string(),
                verdict.name().replace('_', " "),
                escaped(verdict.text().as_bytes())
            ))?,
        }
    }
    Ok(())
}

/// A difference counts most: it is what was looked for.
pub(crate) fn exit(all: &[Compared]) -> Exit {
    let any = |is: &dyn Fn(&Verdict) -> bool| all.iter().any(|one| is(&one.verdict));
    if any(&|verdict| matches!(verdict, Verdict::Differs(_))) {
        return Exit::No;
    }
    match any(&|verdict| matches!(verdict, Verdict::NotCompared(_))) {
        true => Exit::Unavailable,
        false => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(verdicts: &[fn(String) -> Verdict]) -> Vec<Compared> {
        let one = |verdict: &fn(String) -> Verdict| Compared {
            shard: "s".into(),
            node: "h:1".parse().expect("an address"),
            verdict: verdict(String::new()),
        };
        verdicts.iter().map(one).collect()
    }

    #[test]
    fn a_difference_counts_more_than_silence() {
        assert_eq!(exit(&of(&[Verdict::Primary, Verdict::Equal])), Exit::Done);
        assert_eq!(
            exit(&of(&[Verdict::Primary, Verdict::NotCompared])),
            Exit::Unavailable
        );
        let both = of(&[Verdict::Differs, Verdict::NotCompared, Verdict::Equal]);
        assert_eq!(exit(&both), Exit::No);
    }
}
