//! HTML fragments. All are also well-formed XML.

use std::fmt::Write;

/// Escapes text for use between tags or in an attribute.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '"' => out += "&quot;",
            // Characters not allowed in HTML.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// `<p>text</p>`.
pub fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// A paragraph in small print.
pub fn note(text: &str) -> String {
    format!("<p class=\"note\">{}</p>\n", escape(text))
}

/// A table with these headers. The first cell of a row is its header.
pub fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr>");
    headers.iter().for_each(|h| {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(h));
    });
    out += "</tr></thead><tbody>\n";
    for row in rows {
        out += "<tr>";
        for (i, cell) in row.iter().enumerate() {
            let (open, close) = if i == 0 { ("th scope=\"row\"", "th") } else { ("td", "td") };
            let _ = write!(out, "<{open}>{}</{close}>", escape(cell));
        }
        out += "</tr>\n";
    }
    out + "</tbody></table></div>\n"
}

/// A [`table`] whose cells wrap on narrow pages, so that the last column stays visible.
pub fn fitting(headers: &[&str], rows: &[Vec<String>]) -> String {
    table(headers, rows).replacen("<table>", "<table class=\"fits\">", 1)
}

/// A collapsed section. In print it is omitted unless it is open.
pub fn folded(title: &str, body: &str) -> String {
    format!("<details><summary>{}</summary>\n{body}</details>\n", escape(title))
}

/// A list of names and values.
pub fn facts(pairs: &[(&str, String)]) -> String {
    let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
    let items: String = pairs
        .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(value)))
        .collect();
    format!("<dl class=\"facts\">\n{items}</dl>\n")
}

/// Legend of a chart: colour, mark (`full`, `open`, `dashed`) and text.
pub fn key(entries: &[(&str, &str, &str)]) -> String {
    let items: String = entries
        .iter()
        .map(|(colour, mark, words)| {
            let words = escape(words);
            format!("<li><i class=\"{mark}\" style=\"color:var(--{colour})\"></i>{words}</li>\n")
        })
        .collect();
    format!("<ul class=\"key\">\n{items}</ul>\n")
}

/// A chart with its caption.
pub fn figure(title: &str, remark: &str, svg: &str) -> String {
    let remark = match remark {
        "" => String::new(),
        remark => format!("<span>{}</span>", escape(remark)),
    };
    format!("<figure><figcaption>{}{remark}</figcaption>\n{svg}</figure>\n", escape(title))
}
