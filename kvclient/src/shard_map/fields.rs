//! One table of a TOML file, read strictly: known keys only, each of its own type, every mistake with its place.
//!
//! Works on the parsed document instead of deriving `Deserialize`: serde's own messages name Rust's types and
//! know nothing of how to mend a mistake. Knows nothing of shards; that is [`toml`](super::toml)'s work.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What is wrong, how to mend it, and the byte of the text where it stands.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) at: usize,
    pub(super) message: String,
}

impl Mistake {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }
}

/// A key that may stand in a table.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) key: &'static str,
    /// What to write; ends every message about this key.
    pub(super) mend: &'static str,
}

/// A value and the byte where it begins.
#[derive(Debug, Clone)]
pub(super) struct Placed<T> {
    pub(super) at: usize,
    pub(super) value: T,
}

/// A table whose keys are all known.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    table: &'a DeTable<'a>,
    /// What the table stands for, as messages call it.
    what: &'static str,
    /// Where it begins.
    pub(super) at: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(
        table: &'a DeTable<'a>,
        (what, at): (&'static str, usize),
        known: &[Field],
    ) -> Result<Self, Mistake> {
        let unknown = |key: &&Spanned<_>| {
            let key: &std::borrow::Cow<'_, str> = key.get_ref();
            !known.iter().any(|field| field.key == key)
        };
        // The table is sorted by key; a person reads from the top.
        let first = table
            .keys()
            .filter(unknown)
            .min_by_key(|key| key.span().start);
        match first {
            None => Ok(Self { table, what, at }),
            Some(key) => Err(Mistake::new(
                key.span().start,
                format!(
                    "unknown key {:?} in {what}; {}",
                    key.get_ref(),
                    advice(key.get_ref(), known)
                ),
            )),
        }
    }

    /// Where a key stands.
    pub(super) fn place(&self, field: &Field) -> Option<usize> {
        let (key, _) = self.table.get_key_value(field.key)?;
        Some(key.span().start)
    }

    /// The mistake of a key that is not there.
    pub(super) fn missing(&self, field: &Field) -> Mistake {
        Mistake::new(
            self.at,
            format!("{} has no {}; {}", self.what, field.key, field.mend),
        )
    }

    pub(super) fn text(&self, field: &Field) -> Result<Option<Placed<&'a str>>, Mistake> {
        let Some(value) = self.value(field) else {
            return Ok(None);
        };
        match value.get_ref().as_str() {
            Some(text) => Ok(Some(placed(value, text))),
            None => Err(wrong_type(value, field, "be")),
        }
    }

    pub(super) fn texts(&self, field: &Field) -> Result<Option<Vec<Placed<&'a str>>>, Mistake> {
        self.list(field, DeValue::as_str)
    }

    /// A whole number of at least `least` and at most `most`.
    pub(super) fn number(
        &self,
        field: &Field,
        (least, most): (u64, u64),
    ) -> Result<Option<Placed<u64>>, Mistake> {
        let Some(value) = self.value(field) else {
            return Ok(None);
        };
        let at = value.span().start;
        let integer = value
            .get_ref()
            .as_integer()
            .ok_or_else(|| wrong_type(value, field, "be"))?;
        u64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|number| (least..=most).contains(number))
            .map(|value| Some(Placed { at, value }))
            .ok_or_else(|| Mistake::new(at, format!("{} is {integer}; {}", field.key, field.mend)))
    }

    pub(super) fn tables(
        &self,
        field: &Field,
    ) -> Result<Option<Vec<Placed<&'a DeTable<'a>>>>, Mistake> {
        self.list(field, DeValue::as_table)
    }

    fn list<T>(
        &self,
        field: &Field,
        of: impl Fn(&'a DeValue<'a>) -> Option<T>,
    ) -> Result<Option<Vec<Placed<T>>>, Mistake> {
        let Some(value) = self.value(field) else {
            return Ok(None);
        };
        let items = value
            .get_ref()
            .as_array()
            .ok_or_else(|| wrong_type(value, field, "be"))?;
        let item = |value: &'a Spanned<DeValue<'a>>| match of(value.get_ref()) {
            Some(inner) => Ok(placed(value, inner)),
            None => Err(wrong_type(value, field, "hold")),
        };
        items.iter().map(item).collect::<Result<_, _>>().map(Some)
    }

    fn value(&self, field: &Field) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(field.key)
    }
}

fn placed<'a, T>(value: &Spanned<DeValue<'a>>, inner: T) -> Placed<T> {
    Placed {
        at: value.span().start,
        value: inner,
    }
}

/// `verb` is `be` for the value of the key, `hold` for one item of its list.
fn wrong_type(value: &Spanned<DeValue<'_>>, field: &Field, verb: &str) -> Mistake {
    let found = value.get_ref().type_str();
    let article = match found.as_bytes() {
        [b'a' | b'i', ..] => "an",
        _ => "a",
    };
    Mistake::new(
        value.span().start,
        format!(
            "{} cannot {verb} {article} {found}; {}",
            field.key, field.mend
        ),
    )
}

/// The nearest known key, or all of them when none is near.
fn advice(key: &str, known: &[Field]) -> String {
    let key = key.to_lowercase();
    let near = known
        .iter()
        .map(|field| (distance(&key, field.key), field.key))
        .min();
    match near {
        Some((distance, near)) if distance <= 2 => format!("did you mean {near:?}?"),
        _ => {
            let names: Vec<&str> = known.iter().map(|field| field.key).collect();
            format!("known are {}", names.join(", "))
        }
    }
}

/// How many letters to insert, delete or replace to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, want) in [
            ("", "", 0),
            ("", "idx", 3),
            ("address", "address", 0),
            ("adress", "address", 1),
            ("zones", "zone", 1),
            ("nmae", "name", 2),
            ("replica", "replicas", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), want, "{a} {b}");
            assert_eq!(distance(b, a), want, "{b} {a}");
        }
    }
}
