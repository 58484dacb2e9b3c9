//! Walks parsed TOML: what is asked for is typed and in range or becomes a mistake, and what
//! nobody asked for is an unknown key. A mistake never ends the walk.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::report::{ConfigError, named, quoted};
use crate::config::source::Source;

/// Collects what is found on the way.
pub(super) struct Findings<'d> {
    pub(super) source: &'d Source,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<(usize, String)>,
    pub(super) not_built: Vec<ConfigError>,
}

impl<'d> Findings<'d> {
    pub(super) fn new(source: &'d Source) -> Self {
        Self {
            source,
            errors: Vec::new(),
            warnings: Vec::new(),
            not_built: Vec::new(),
        }
    }

    /// A mistake.
    pub(super) fn error(&mut self, line: usize, key: &str, why: impl Into<String>) {
        let error = self.told(line, key, why.into());
        self.errors.push(error);
    }

    /// Legal, but this version refuses to run it.
    pub(super) fn not_built(&mut self, line: usize, key: &str, why: &str) {
        let error = self.told(line, key, format!("not built in this version ({why})"));
        self.not_built.push(error);
    }

    /// Legal, but worth a word.
    pub(super) fn warning(&mut self, line: usize, key: &str, why: &str) {
        let error = self.told(line, key, why.to_owned());
        self.warnings.push((line, error.to_string()));
    }

    fn told(&self, line: usize, key: &str, why: String) -> ConfigError {
        ConfigError {
            file: self.source.file.clone(),
            line,
            key: key.to_owned(),
            why,
        }
    }
}

/// One key with its value.
#[derive(Clone)]
pub(super) struct Entry<'d> {
    /// The key as messages name it.
    pub(super) key: String,
    /// Where it stands.
    pub(super) line: usize,
    /// What it says.
    pub(super) value: &'d Spanned<DeValue<'d>>,
}

/// A table whose keys are taken one after the other.
pub(super) struct Table<'d> {
    /// Where its header stands.
    pub(super) line: usize,
    table: &'d DeTable<'d>,
    prefix: String,
    asked: Vec<&'static str>,
}

impl<'d> Table<'d> {
    pub(super) fn new(table: &'d DeTable<'d>, line: usize) -> Self {
        Self {
            line,
            table,
            prefix: String::new(),
            asked: Vec::new(),
        }
    }

    /// The same table, its keys named behind `prefix`.
    pub(super) fn renamed(self, prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            ..self
        }
    }

    /// The key, if the table has it.
    pub(super) fn take(&mut self, found: &Findings<'d>, key: &'static str) -> Option<Entry<'d>> {
        self.asked.push(key);
        let (name, value) = self.table.get_key_value(key)?;
        Some(Entry {
            key: format!("{}{key}", self.prefix),
            line: found.source.line(name.span().start),
            value,
        })
    }

    /// The key; a mistake if the table has it not.
    pub(super) fn require(
        &mut self,
        found: &mut Findings<'d>,
        key: &'static str,
        accepted: &str,
    ) -> Option<Entry<'d>> {
        let entry = self.take(found, key);
        if entry.is_none() {
            self.missing(found, key, accepted);
        }
        entry
    }

    /// A mistake at the header.
    pub(super) fn missing(&self, found: &mut Findings<'d>, key: &str, accepted: &str) {
        let key = format!("{}{key}", self.prefix);
        found.error(self.line, &key, format!("missing ({accepted})"));
    }

    /// The inline (or dotted, or sub-) table under that key.
    pub(super) fn table(&mut self, found: &mut Findings<'d>, key: &'static str) -> Option<Self> {
        self.take(found, key)?.table(found)
    }

    /// Every key that was not asked for is unknown.
    pub(super) fn finish(self, found: &mut Findings<'d>) {
        for name in self.table.keys() {
            if !self.asked.contains(&name.get_ref().as_ref()) {
                let line = found.source.line(name.span().start);
                let key = format!("{}{}", self.prefix, named(name.get_ref()));
                let accepted = self.asked.join(", ");
                found.error(line, &key, format!("unknown key ({accepted})"));
            }
        }
    }
}

/// A mistake of type, naming only the type that was given.
pub(super) fn wrong_type(
    found: &mut Findings<'_>,
    entry: &Entry<'_>,
    value: &DeValue<'_>,
    accepted: &str,
) {
    let given = match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    found.error(
        entry.line,
        &entry.key,
        format!("wrong type: {given} ({accepted})"),
    );
}

impl<'d> Entry<'d> {
    /// The same key, another value below it. Its mistakes stand at the key's line.
    pub(super) fn element(&self, value: &'d Spanned<DeValue<'d>>) -> Self {
        Self {
            value,
            ..self.clone()
        }
    }

    /// The table that the key holds, its keys named behind this one's.
    pub(super) fn table(&self, found: &mut Findings<'_>) -> Option<Table<'d>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Some(Table {
                line: self.line,
                table,
                prefix: format!("{}.", self.key),
                asked: Vec::new(),
            }),
            other => {
                wrong_type(found, self, other, "a table { … }");
                None
            }
        }
    }

    /// Every element of a list. A single value is a list of one where `single` says so.
    pub(super) fn elements(
        &self,
        found: &mut Findings<'d>,
        single: bool,
        accepted: &str,
    ) -> Option<Vec<Self>> {
        match self.value.get_ref() {
            DeValue::Array(values) if values.is_empty() => {
                found.error(self.line, &self.key, format!("empty list ({accepted})"));
                None
            }
            DeValue::Array(values) => {
                Some(values.iter().map(|value| self.element(value)).collect())
            }
            _ if single => Some(vec![self.clone()]),
            other => {
                wrong_type(found, self, other, accepted);
                None
            }
        }
    }

    /// A string.
    pub(super) fn text(&self, found: &mut Findings<'d>, accepted: &str) -> Option<&'d str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text),
            other => {
                wrong_type(found, self, other, accepted);
                None
            }
        }
    }

    /// true or false.
    pub(super) fn boolean(&self, found: &mut Findings<'d>) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            other => {
                wrong_type(found, self, other, "true or false");
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        found: &mut Findings<'d>,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let accepted = words.join(" | ");
        let text = self.text(found, &accepted)?;
        let choice = choices.iter().find(|(word, _)| *word == text);
        if choice.is_none() {
            self.refuse(found, format!("{} is unknown", quoted(text)), &accepted);
        }
        choice.map(|(_, value)| *value)
    }

    /// A whole number in a range.
    pub(super) fn number<T: TryFrom<u64> + Into<u64> + Copy>(
        &self,
        found: &mut Findings<'d>,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        let (first, last) = ((*range.start()).into(), (*range.end()).into());
        self.number_as(found, range, &format!("a number from {first} to {last}"))
    }

    /// As [`Entry::number`] where the range alone does not say what is accepted.
    pub(super) fn number_as<T: TryFrom<u64> + Into<u64> + Copy>(
        &self,
        found: &mut Findings<'d>,
        range: RangeInclusive<T>,
        accepted: &str,
    ) -> Option<T> {
        let DeValue::Integer(integer) = self.value.get_ref() else {
            wrong_type(found, self, self.value.get_ref(), accepted);
            return None;
        };
        let value = i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX);
        let limits = (*range.start()).into()..=(*range.end()).into();
        let why = match u64::try_from(value) {
            Ok(number) if number <= LARGEST && limits.contains(&number) => {
                return T::try_from(number).ok();
            }
            Ok(number) if number <= u64::from(u32::MAX) => format!("{number} is out of range"),
            Ok(number) if number <= LARGEST => String::from("out of range"),
            Err(_) if value < 0 => String::from("out of range, negative"),
            _ => String::from("a number above 2^63-1"),
        };
        self.refuse(found, why, accepted);
        None
    }

    /// An IP address without a prefix length.
    pub(super) fn address(&self, found: &mut Findings<'d>, accepted: &str) -> Option<IpAddr> {
        let text = self.text(found, accepted)?;
        if let Ok(address) = text.parse() {
            return Some(address);
        }
        let why = match text.split_once('/') {
            Some((address, _)) if address.parse::<IpAddr>().is_ok() => {
                format!("{} is a prefix", quoted(text))
            }
            _ => format!("{} is no address", quoted(text)),
        };
        self.refuse(found, why, accepted);
        None
    }

    /// A name: unique per kind, which others check.
    pub(super) fn name(&self, found: &mut Findings<'d>) -> Option<&'d str> {
        let accepted = "1 to 64 of A-Z a-z 0-9 . _ -";
        let text = self.text(found, accepted)?;
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !text.is_empty() && text.len() <= 64 && text.bytes().all(legal) {
            return Some(text);
        }
        self.refuse(found, format!("{} is no name", quoted(text)), accepted);
        None
    }

    /// A mistake in what this key says.
    pub(super) fn refuse(&self, found: &mut Findings<'_>, why: impl Into<String>, accepted: &str) {
        let why = why.into();
        found.error(self.line, &self.key, format!("{why} ({accepted})"));
    }
}

/// TOML's own limit, and this format's.
pub(super) const LARGEST: u64 = i64::MAX as u64;
