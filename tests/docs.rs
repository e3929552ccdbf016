//! Checks that the tables of calls and of limits in `docs/` are those of the program.

/// The page with the table of calls.
const CALLS: &str = include_str!("../docs/netbsd-compatibility.md");
/// The page with the tables of limits.
const LIMITS: &str = include_str!("../docs/limits.md");

#[test]
fn the_table_of_calls_is_the_kernels() {
    let table = rumpring::cli::calls_table();
    assert!(
        CALLS.contains(&table),
        "the table of calls is not what `rumpring calls` prints:\n{table}"
    );
}

/// Returns the rows of the tables of limits: option and default.
fn limits() -> Vec<(String, String)> {
    let rows = LIMITS.lines().filter(|line| line.starts_with("| ") && line.contains("`--"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        (cells[2].trim_matches('`').to_owned(), cells[3].to_owned())
    })
    .collect()
}

/// Returns the text of `serve --help`, with the options of limits and their defaults.
fn helped() -> String {
    let mut serve = std::process::Command::new(env!("CARGO_BIN_EXE_rumpring"));
    let output = serve.args(["serve", "--help"]).output().expect("the program runs");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_tables_of_limits_have_every_limit_and_its_default() {
    let help = helped();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows = limits();
    assert!(rows.len() > 25, "only {} limits", rows.len());
    for (option, default) in &rows {
        let (_, after) = words
            .split_once(&format!("{option} <"))
            .unwrap_or_else(|| panic!("`serve --help` has no {option}"));
        let end = after.find(" --").unwrap_or(after.len());
        let told = after[..end].split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
        match told {
            Some((told, _)) => assert_eq!(told, default, "the default of {option}"),
            None => assert!(
                default.starts_with("none") || default.starts_with("open files"),
                "{option}"
            ),
        }
    }
    // The help has no limit that the tables lack.
    for heading in ["Limits:", "Limits of the embedded kernel:"] {
        let section = help.split(heading).nth(1).expect(heading);
        let section = section.lines().take_while(|line| line.is_empty() || line.starts_with(' '));
        for line in section.filter_map(|line| line.trim_start().strip_prefix("--")) {
            let option = format!("--{}", line.split_whitespace().next().expect("a word"));
            let is_there = rows.iter().any(|(row, _)| *row == option);
            assert!(is_there, "the tables of limits have no {option}");
        }
    }
}
