//! `docs/configuration.md`, from the declarations that `--help` shows.

use crate::{
    args::{Cli, DISKS, TIMING},
    config_file::file_settings,
};
use clap::{Arg, Command, CommandFactory};
use std::fmt::Write;

const TOP: &str = "\
# Configuration

<!-- Printed by `holdfast configuration-page` from crates/cli/src/args/; a test compares it. -->

A node (`holdfast node`) takes each setting from its flag, else from the environment, else from the TOML file that
`--config` (or `HOLDFAST_CONFIG`) names, else from its default. A key that does not exist and a value that does not do
are refused at the start, with the file's name. Where several values are allowed, flag and environment separate them by
commas, and the file takes a list. Sizes are written as `10GiB`.

```toml
# holdfast node --config n1.toml
name = \"n1\"
zone = \"rack-1\"
data_dir = \"/var/lib/holdfast\"
listen = \"10.0.0.1:10819\"
seed = [\"10.0.0.1:10819\", \"10.0.0.2:10819\", \"10.0.0.3:10819\"]
nbd = \"127.0.0.1:10809\"
disk = [\"/dev/nvme1n1\", \"/dev/nvme2n1\"]
```

## A node

";

const QUICK_START: &str = "
## The quick start

`holdfast` without a subcommand runs several nodes on one machine, each as a process of its own with a directory in the data
directory. It takes flags and the environment, no file. Settings of a node that stand under *Disks*, but for `--disk`, and
under *Timing* are settings of the quick start too, and are handed to each node; no others of the environment reach them.

";

const CLIENT: &str = "
## Commands that ask a node

";

const LOG: &str = "
## The log

`HOLDFAST_LOG` filters what goes to standard error: `error`, `warn`, `info`, `debug`, or by module, such as
`info,holdfast_engine=debug`; the default is `info`, and nothing of what openraft says.
";

/// The page.
pub(crate) fn configuration() -> String {
    let mut cli = Cli::command();
    cli.build();
    let find = |path: &[&str]| {
        path.iter().fold(&cli, |command, name| match command.find_subcommand(name) {
            Some(found) => found,
            None => unreachable!("{name} is a command, see the tests"),
        })
    };
    let node = find(&["node"]);
    let mut page = TOP.to_owned();
    let in_file: Vec<&str> = file_settings(node).map(|arg| arg.get_id().as_str()).collect();
    sections(&mut page, node, &|_| true, &|arg| in_file.contains(&arg.get_id().as_str()));
    page += QUICK_START;
    let of_each_node: Vec<_> = node.get_arguments().map(|arg| arg.get_long()).collect();
    let is_own = |arg: &Arg| {
        !matches!(arg.get_help_heading(), Some(DISKS | TIMING))
            || !of_each_node.contains(&arg.get_long())
    };
    sections(&mut page, &cli, &is_own, &|_| false);
    page += CLIENT;
    table(&mut page, find(&["status"]).get_arguments().filter(|arg| shown(arg)), &|_| false);
    page += LOG;
    page
}

fn shown(arg: &Arg) -> bool {
    !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version" | "output")
}

/// A table for each heading of a command's help.
fn sections(
    page: &mut String,
    command: &Command,
    which: &dyn Fn(&Arg) -> bool,
    in_file: &dyn Fn(&Arg) -> bool,
) {
    let mut headings: Vec<Option<&str>> = Vec::new();
    for arg in command.get_arguments().filter(|arg| shown(arg) && which(arg)) {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    for heading in headings {
        if let Some(heading) = heading {
            *page += &format!("\n### {heading}\n\n");
        }
        let of_heading = command
            .get_arguments()
            .filter(|arg| shown(arg) && which(arg) && arg.get_help_heading() == heading);
        table(page, of_heading, in_file);
    }
}

fn table<'a>(
    page: &mut String,
    args: impl Iterator<Item = &'a Arg>,
    in_file: &dyn Fn(&Arg) -> bool,
) {
    *page += "| flag | environment, file | default | what it does |\n|---|---|---|---|\n";
    for arg in args {
        let Some(long) = arg.get_long() else { unreachable!("settings have long names") };
        let value = match arg.get_value_names() {
            Some([name, ..]) if arg.get_action().takes_values() => format!(" {name}"),
            _ => String::new(),
        };
        let mut elsewhere = Vec::new();
        if let Some(name) = arg.get_env() {
            elsewhere.push(format!("`{}`", name.to_string_lossy()));
        }
        if in_file(arg) {
            elsewhere.push(format!("`{}`", arg.get_id()));
        }
        let (help, default) = help_and_default(arg);
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `--{long}{}` | {} | {default} | {} |",
            value.replace('|', "\\|"),
            elsewhere.join(", "),
            help.replace('|', "\\|")
        );
    }
}

/// The long help as one paragraph, and the default: clap's, or the one that the help
/// names in brackets because it depends on another setting.
fn help_and_default(arg: &Arg) -> (String, String) {
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let defaults: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    let mut default = match defaults.as_slice() {
        _ if !arg.get_action().takes_values() => String::new(),
        [] => String::new(),
        some => format!("`{}`", some.join(",")),
    };
    if let Some((before, after)) = help.split_once(" [default: ")
        && let Some((named, after)) = after.split_once(']')
    {
        default = named.to_owned();
        help = format!("{before}{after}");
    }
    let possible: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|_| arg.get_action().takes_values())
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}`: {help};", value.get_name()),
            None => format!("`{}`;", value.get_name()),
        })
        .collect();
    if !possible.is_empty() {
        help = format!("{help}. {}", possible.join(" ").trim_end_matches(';'));
    }
    if !help.ends_with(['.', '…']) {
        help.push('.');
    }
    (help, default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_page_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        let stored = std::fs::read_to_string(path).unwrap();
        assert!(
            stored == configuration(),
            "run: cargo run -- configuration-page > docs/configuration.md"
        );
    }

    /// A setting has one name, whether it is a flag, a variable or a key.
    #[test]
    fn names_agree() {
        let cli = Cli::command();
        let node = cli.find_subcommand("node").unwrap();
        let mut seen = 0;
        for arg in file_settings(node) {
            let long = arg.get_long().unwrap();
            let snake = long.replace('-', "_");
            assert_eq!(arg.get_id().as_str(), snake);
            let env = arg.get_env().unwrap().to_str().unwrap();
            assert_eq!(env, format!("HOLDFAST_{}", snake.to_uppercase()));
            assert!(arg.get_help().is_some_and(|help| !help.to_string().is_empty()), "{long}");
            seen += 1;
        }
        assert!(seen > 20, "{seen}");
    }
}
