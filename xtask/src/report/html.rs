//! The page: one file with everything in it, nothing fetched from anywhere.

/// Text as it may stand in HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A whole page around `body`.
pub(crate) fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <title>{title}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )
}

/// Whether every tag is closed in order. For tests, and for HTML that closes all its tags.
///
/// # Errors
/// The first tag that is not.
#[cfg(test)]
pub(crate) fn balanced(text: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let end = rest[at..].find('>').ok_or("a tag without an end")? + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if tag.starts_with('!') || tag.ends_with('/') {
            continue;
        }
        let name = tag.split_whitespace().next().unwrap_or_default();
        match name.strip_prefix('/') {
            Some(closed) if open.pop() == Some(closed) => {}
            Some(closed) => return Err(format!("</{closed}> closes nothing")),
            None => open.push(name),
        }
        if name == "style" {
            rest = &rest[rest.find("</style>").ok_or("a style without an end")?..];
        }
    }
    match open.pop() {
        Some(name) => Err(format!("<{name}> is not closed")),
        None => Ok(()),
    }
}

const STYLE: &str = include_str!("style.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_closed_is_found() {
        assert_eq!(balanced("<p>a<br/>b</p>"), Ok(()));
        assert!(balanced("<p><b></p></b>").is_err());
        assert!(balanced("<p>").is_err());
        assert!(balanced("</p>").is_err());
    }

    #[test]
    fn a_page_is_well_formed_and_fetches_nothing() {
        let page = page("a < b", "<p>text</p>");
        assert_eq!(balanced(&page), Ok(()));
        for foreign in ["://", "url(", "@import", "<script", "<link", "src="] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
