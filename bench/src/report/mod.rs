//! The report of a comparison: one page of HTML with everything in it, the charts included.
//!
//! - [`mod@charts`]: the charts and their contents; [`plot`]: the drawing of a chart.

mod charts;
mod plot;

use std::fmt::Write;

use crate::compare::{Column, Findings, Table, all_tables};
use charts::Section;

const STYLE: &str = "\
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 2em auto; \
max-width: 76em; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin: 2em 0 .4em }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: .15em .6em; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap }
th { border-bottom-color: #888; white-space: normal; vertical-align: bottom }
.n { text-align: right }
tr.first td { border-top: 1px solid #888 }
.wide { overflow-x: auto }
pre, code { font: 12.5px/1.4 ui-monospace, monospace; background: #f5f5f5; padding: 0 .2em }
pre { padding: .6em; white-space: pre-wrap; overflow-wrap: anywhere }
.charts { display: flex; flex-wrap: wrap; gap: .8em }
figure { margin: 0 } figcaption { font-weight: 600; font-size: 14px }
.legend span { display: inline-block; margin-right: 1.4em }
.legend i { display: inline-block; width: 1.4em; height: .28em; margin-right: .4em; \
vertical-align: middle }
.short { color: #a00; font-weight: 600 }
";

/// Returns the whole page.
pub fn page(findings: &Findings<'_>) -> Result<String, plot::Error> {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>System calls of servers, compared</title>\n<style>\n",
    );
    page += STYLE;
    page += "</style>\n</head>\n<body>\n<h1>System calls of servers, compared</h1>\n";
    page += &introduction(findings);
    for section in charts::sections(findings)? {
        page += &charts(&section, findings);
    }
    for table in all_tables(findings) {
        page += &html(&table);
    }
    page += "</body>\n</html>\n";
    Ok(page)
}

/// Describes how and on what machine the numbers were measured.
fn introduction(findings: &Findings<'_>) -> String {
    let mut text = String::new();
    if let Some(why) = &findings.cut_short {
        text += &format!("<p class=\"short\">This was {}.</p>\n", escape(why));
    }
    text += &format!(
        "<p>{}. Numbers are medians of the turns; each ratio is the median of those of the turns, \
         with the least and the greatest. CPU time, context switches, io_uring_enter calls, threads \
         and user memory are the server's.</p>\n<ul>\n",
        escape(&findings.how)
    );
    for target in findings.targets {
        let (name, command) = (escape(&target.name), escape(&target.command()));
        text += &format!("<li>{name}: <code>{command}</code></li>\n");
    }
    text += "</ul>\n";
    if let Some(about) = &findings.about {
        text += &format!("<pre>{}</pre>\n", escape(about.trim_end()));
    }
    text
}

fn charts(section: &Section, findings: &Findings<'_>) -> String {
    let mut text = format!("<h2>{}</h2>\n<p>{}</p>\n", section.title, section.words);
    text += "<p class=\"legend\">";
    for (index, target) in findings.targets.iter().enumerate() {
        let color = plot::color_name(index);
        let name = escape(&target.name);
        let _ = write!(text, "<span><i style=\"background: {color}\"></i>{name}</span>");
    }
    text += "</p>\n<div class=\"charts\">\n";
    for (title, svg) in &section.charts {
        let title = escape(title);
        text += &format!("<figure>\n<figcaption>{title}</figcaption>\n{svg}\n</figure>\n");
    }
    text + "</div>\n"
}

fn html(table: &Table) -> String {
    let title = if table.title.is_empty() { "What was measured" } else { &table.title };
    let mut text = format!("<h2>{}</h2>\n<div class=\"wide\">\n<table>\n<tr>", escape(title));
    for column in &table.head {
        text += &format!("<th{}>{}</th>", class(*column), escape(column.name()));
    }
    text += "</tr>\n";
    let mut before: Option<&[String]> = None;
    for row in &table.rows {
        // A line separates one load from the next.
        let is_first = before.is_some_and(|before| before[..2] != row[..2] && row.len() > 5);
        text += if is_first { "<tr class=\"first\">" } else { "<tr>" };
        for (cell, column) in row.iter().zip(&table.head) {
            text += &format!("<td{}>{}</td>", class(*column), bold(&escape(cell)));
        }
        text += "</tr>\n";
        before = Some(row);
    }
    text + "</table>\n</div>\n"
}

fn class(column: Column) -> &'static str {
    match column {
        Column::Words(_) => "",
        Column::Numbers(_) => " class=\"n\"",
    }
}

/// Sets the text between two pairs of stars in bold.
fn bold(cell: &str) -> String {
    match cell.split("**").collect::<Vec<_>>()[..] {
        [before, bold, after] => format!("{before}<b>{bold}</b>{after}"),
        _ => cell.into(),
    }
}

/// Escapes text for HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::test_findings;

    #[test]
    fn the_page_has_all_and_needs_nothing_else() {
        let targets = vec!["a=x {url}".parse().unwrap(), "b=y <{url}>".parse().unwrap()];
        let mut findings = test_findings(&targets);
        let page = page(&findings).unwrap();
        for text in ["by &lt;hand&gt;", "a machine &amp; more", "<code>y &lt;{url}&gt;</code>"] {
            assert!(page.contains(text), "{text}: {page}");
        }
        for text in ["<td class=\"n\"><b>2.50</b> (2.50..2.50)</td>", "Ratios to b", "Latencies"] {
            assert!(page.contains(text), "{text}: {page}");
        }
        // There are two charts over connections, and the latencies of two loads.
        assert_eq!(page.matches("<svg ").count(), 4);
        assert_eq!(page.matches("</svg>").count(), 4);
        for text in ["<script", "src=", "href=", "@import", "cut short"] {
            assert!(!page.contains(text), "{text}: {page}");
        }
        findings.cut_short = Some("cut short by a signal".into());
        assert!(super::page(&findings).unwrap().contains("This was cut short by a signal."));
    }

    #[test]
    fn a_page_of_nothing_is_one_too() {
        let targets = vec!["a=x {url}".parse().unwrap(), "b=y {url}".parse().unwrap()];
        let mut findings = test_findings(&targets);
        findings.cases.clear();
        findings.idle.clear();
        assert!(!page(&findings).unwrap().contains("<svg"));
    }
}
