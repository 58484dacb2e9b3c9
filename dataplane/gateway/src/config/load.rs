//! From a file to a [`Config`], or to all of its mistakes.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use crate::config::Purpose;
use crate::config::reader::{Entry, Findings, Table, wrong_type};
use crate::config::report::{ConfigError, named};
use crate::config::settings::Config;
use crate::config::source::Source;
use crate::config::validate::{self, Drafts};
use crate::config::{dataplane, policies, ports, sas};

/// Reads, parses and validates `path`.
///
/// # Errors
/// Every mistake of the file, in order of line. A TOML syntax error ends the search.
pub fn load(path: &Path, purpose: Purpose) -> Result<Config, Vec<ConfigError>> {
    from_source(&Source::read(path).map_err(|error| vec![error])?, purpose)
}

/// As [`load`], from bytes that were read already; `file` names them, and key files are relative
/// to its folder.
///
/// # Errors
/// As [`load`].
pub fn parse(
    file: &Path,
    bytes: Zeroizing<Vec<u8>>,
    purpose: Purpose,
) -> Result<Config, Vec<ConfigError>> {
    let source = Source::from_bytes(file, bytes).map_err(|error| vec![error])?;
    from_source(&source, purpose)
}

fn from_source(source: &Source, purpose: Purpose) -> Result<Config, Vec<ConfigError>> {
    let (root, mistakes) = DeTable::parse_recoverable(&source.text);
    let mut found = Findings::new(source);
    if !syntax(&mut found, &mistakes) {
        return Err(found.errors);
    }
    let drafts = read(&mut found, root.get_ref(), purpose);
    validate::check(&mut found, &drafts);
    if found.errors.is_empty() {
        return Ok(finish(found, drafts));
    }
    found.errors.sort_by_key(|error| error.line);
    Err(found.errors)
}

/// Tells what is not TOML; true if the rest can be trusted. A key that stands twice is a syntax
/// error of TOML, but the parser keeps the first one, so the search goes on.
fn syntax(found: &mut Findings<'_>, mistakes: &[toml::de::Error]) -> bool {
    let place = |mistake: &toml::de::Error| mistake.span().map_or(0, |span| span.start);
    let other = mistakes
        .iter()
        .find(|mistake| mistake.message() != DUPLICATE);
    if let Some(first) = other {
        let line = found.source.line(place(first));
        // The parser's own rendering shows the line, and that may be a key's.
        let why = format!("{} (TOML 1.0)", first.message().replace('\n', ", "));
        found.error(line, "syntax", why);
        return false;
    }
    for mistake in mistakes {
        let line = found.source.line(place(mistake));
        let text = mistake.span().and_then(|span| found.source.text.get(span));
        let key = text.unwrap_or_default().trim_matches(['"', '\'']);
        found.error(line, &named(key), "stands twice (each key once in a table)");
    }
    true
}

/// What the parser says of a key that stands twice; a test holds it to that.
const DUPLICATE: &str = "duplicate key";

fn read<'d>(found: &mut Findings<'d>, root: &'d DeTable<'d>, purpose: Purpose) -> Drafts<'d> {
    let mut root = Table::new(root, 1);
    let dataplane = match root.table(found, "dataplane") {
        Some(table) => dataplane::read(found, table.renamed("")),
        None => dataplane::Draft::default(),
    };
    let mut ports = Vec::new();
    for table in tables(found, &mut root, "port") {
        ports.push(ports::read_port(found, table, purpose));
    }
    let mut sas = Vec::new();
    for table in tables(found, &mut root, "sa") {
        sas.push(sas::read(found, table, dataplane.settings.allow_legacy));
    }
    let mut policies = Vec::new();
    for table in tables(found, &mut root, "policy") {
        policies.push(policies::read(found, table));
    }
    let mut routes = Vec::new();
    for table in tables(found, &mut root, "route") {
        routes.extend(ports::read_route(found, table, &ports));
    }
    let mut neighbors = Vec::new();
    for table in tables(found, &mut root, "neighbor") {
        neighbors.extend(ports::read_neighbor(found, table, &ports));
    }
    root.finish(found);
    Drafts {
        dataplane,
        ports,
        sas,
        policies,
        routes,
        neighbors,
    }
}

/// The tables of an array of tables.
fn tables<'d>(found: &mut Findings<'d>, root: &mut Table<'d>, key: &'static str) -> Vec<Table<'d>> {
    let Some(entry) = root.take(found, key) else {
        return Vec::new();
    };
    let accepted = format!("[[{key}]] tables");
    let DeValue::Array(values) = entry.value.get_ref() else {
        wrong_type(found, &entry, entry.value.get_ref(), &accepted);
        return Vec::new();
    };
    let values = values.iter();
    values
        .filter_map(|value| one_table(found, &entry, value, &accepted))
        .collect()
}

fn one_table<'d>(
    found: &mut Findings<'d>,
    entry: &Entry<'d>,
    value: &'d Spanned<DeValue<'d>>,
    accepted: &str,
) -> Option<Table<'d>> {
    let element = Entry {
        line: found.source.line(value.span().start),
        ..entry.element(value)
    };
    let DeValue::Table(table) = value.get_ref() else {
        wrong_type(found, &element, value.get_ref(), accepted);
        return None;
    };
    Some(Table::new(table, element.line))
}

fn finish(found: Findings<'_>, drafts: Drafts<'_>) -> Config {
    let Findings {
        source,
        mut warnings,
        mut not_built,
        ..
    } = found;
    warnings.sort_by_key(|(line, _)| *line);
    not_built.sort_by_key(|error| error.line);
    let ports = drafts.ports.into_iter();
    let sas = drafts.sas.into_iter();
    let policies = drafts.policies.into_iter();
    Config {
        file: source.file.clone(),
        dataplane: drafts.dataplane.settings,
        ports: ports.filter_map(|port| port.settings).collect(),
        sas: sas.filter_map(sas::SaDraft::finish).collect(),
        policies: policies.filter_map(|policy| policy.parameters).collect(),
        routes: drafts.routes.into_iter().map(|(route, _)| route).collect(),
        neighbors: drafts.neighbors.into_iter().map(|(it, _)| it).collect(),
        warnings: warnings.into_iter().map(|(_, text)| text).collect(),
        not_built,
    }
}
