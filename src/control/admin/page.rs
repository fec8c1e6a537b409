//! The status as a page for people: one file, no script, nothing loaded from elsewhere.

use serde_json::Value;

use crate::escape;

/// The page. Every value of the status is escaped.
pub(super) fn render(status: &Value) -> String {
    let mut page = String::from(HEAD);
    value(&mut page, status, 0);
    page.push_str("</main></body></html>\n");
    page
}

const HEAD: &str = "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>egret</title>\
<meta name=\"viewport\" content=\"width=device-width\"><style>\
:root{color-scheme:light dark}body{font:15px/1.4 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}\
table{border-collapse:collapse;margin:.2rem 0 .8rem}th,td{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0;\
border-top:1px solid #8884}th{font-weight:600}code{font-family:ui-monospace,monospace;overflow-wrap:anywhere}\
</style></head><body><main><h1>egret</h1>";

/// The status nests four deep; what is deeper is shown as JSON.
const MAX_DEPTH: usize = 8;

fn value(page: &mut String, shown: &Value, depth: usize) {
    match shown {
        _ if depth == MAX_DEPTH => code(page, &shown.to_string()),
        Value::Object(fields) => {
            page.push_str("<table>");
            for (name, field) in fields {
                page.push_str("<tr><th scope=\"row\">");
                escape(page, name);
                page.push_str("</th><td>");
                value(page, field, depth + 1);
                page.push_str("</td></tr>");
            }
            page.push_str("</table>");
        }
        Value::Array(rows) if rows.is_empty() => page.push_str("none"),
        Value::Array(rows) => match columns(rows) {
            Some(names) => table(page, &names, rows, depth),
            None => rows.iter().for_each(|row| {
                page.push_str("<div>");
                value(page, row, depth + 1);
                page.push_str("</div>");
            }),
        },
        Value::String(text) => code(page, text),
        Value::Null => page.push('–'),
        Value::Bool(_) | Value::Number(_) => code(page, &shown.to_string()),
    }
}

/// The names of all fields, if every row is an object.
fn columns(rows: &[Value]) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    for row in rows {
        for name in row.as_object()?.keys() {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    Some(names)
}

fn table(page: &mut String, names: &[&str], rows: &[Value], depth: usize) {
    page.push_str("<table><tr>");
    for name in names {
        page.push_str("<th scope=\"col\">");
        escape(page, name);
        page.push_str("</th>");
    }
    page.push_str("</tr>");
    for row in rows {
        page.push_str("<tr>");
        for name in names {
            page.push_str("<td>");
            value(page, row.get(name).unwrap_or(&Value::Null), depth + 1);
            page.push_str("</td>");
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
}

fn code(page: &mut String, text: &str) {
    page.push_str("<code>");
    escape(page, text);
    page.push_str("</code>");
}

/// Escapes text between tags; the page shows values nowhere else.
fn escape(page: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            c => escape::push(page, c),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_in_a_status_becomes_markup() {
        let hostile = "<script>alert('x')</script>&\"\u{0}\u{202e}\u{2028}\u{200b}";
        let page = render(&json!({ hostile: [{ hostile: hostile }, { "deep": [[hostile]] }], "n": hostile }));
        assert!(!page.contains("<script"), "{page}");
        assert!(!page.chars().any(|letter| escape::is_invisible(letter) && letter != '\n'), "{page:?}");
        assert_eq!(page.matches("&lt;script&gt;").count(), 5, "{page}");
    }

    #[test]
    fn a_deep_status_ends() {
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        assert!(render(&deep).contains("[[[["));
    }
}
