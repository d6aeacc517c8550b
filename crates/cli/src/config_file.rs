//! The file that `holdfast node --config FILE` names.
//!
//! Its keys are the settings of `holdfast node`, and its values take the place of the
//! settings' defaults: so a flag and the environment come first, and a value is
//! checked by the parser that checks the flag.

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, builder::OsStr};
use std::{ffi::OsString, fs, path::Path};
use toml::{Table, Value};

use crate::args::Cli;

/// The subcommand whose settings a file may hold.
const COMMAND: &str = "node";
/// Settings that no file holds: where the file is.
const NOT_IN_FILE: [&str; 1] = ["config"];

/// Why the program does not get to its work.
#[derive(Debug)]
pub(crate) enum NotParsed {
    /// The command line or the environment; knows how to show itself.
    Usage(clap::Error),
    /// The file.
    File(String),
}

/// Parses the command line, the environment and, when they name one, the file. The matches
/// still know where each value came from.
pub(crate) fn parse(
    args: impl IntoIterator<Item = OsString>,
) -> Result<(Cli, ArgMatches), NotParsed> {
    let args: Vec<OsString> = args.into_iter().collect();
    let (cli, matches) = parse_with(Cli::command(), &args).map_err(NotParsed::Usage)?;
    let Some(path) = config_path(&cli) else {
        return Ok((cli, matches));
    };
    let in_file = |reason: String| NotParsed::File(format!("{}: {reason}", path.display()));
    let text = fs::read_to_string(path)
        .map_err(|error| in_file(format!("cannot read the configuration: {error} (--config)")))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        in_file(format!("this is no TOML: {}", error.to_string().trim_end().replace('\n', "\n  ")))
    })?;
    let settings = settings(&table).map_err(in_file)?;
    let command =
        Cli::command().mut_subcommand(COMMAND, |command| with_defaults(command, settings));
    // Flags and environment passed above; what fails now is a value of the file.
    parse_with(command, &args).map_err(|error| {
        let text = error.render().to_string();
        let cause = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        in_file(cause.to_owned())
    })
}

fn parse_with(mut command: Command, args: &[OsString]) -> Result<(Cli, ArgMatches), clap::Error> {
    let matches = command.try_get_matches_from_mut(args)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok((cli, matches))
}

fn config_path(cli: &Cli) -> Option<&Path> {
    match &cli.command {
        Some(crate::args::Command::Node(node)) if node.command.is_none() => {
            node.settings.config.as_deref()
        }
        _ => None,
    }
}

/// The settings that a file may hold, in the order of `--help`.
pub(crate) fn file_settings(node: &Command) -> impl Iterator<Item = &clap::Arg> {
    node.get_arguments().filter(|arg| {
        let id = arg.get_id().as_str();
        !arg.is_hide_set() && !NOT_IN_FILE.contains(&id) && id != "help" && id != "version"
    })
}

/// A setting's values as text.
type Setting = (String, Vec<String>);

fn settings(table: &Table) -> Result<Vec<Setting>, String> {
    let cli = Cli::command();
    let Some(node) = cli.find_subcommand(COMMAND) else {
        unreachable!("the command exists, see the tests");
    };
    let known: Vec<&str> = file_settings(node).map(|arg| arg.get_id().as_str()).collect();
    let mut found = Vec::new();
    for (key, value) in table {
        if !known.contains(&key.as_str()) {
            return Err(format!("there is no setting {key:?}; there are {}", known.join(", ")));
        }
        let many = file_settings(node)
            .find(|arg| arg.get_id() == key.as_str())
            .is_some_and(|arg| arg.get_value_delimiter().is_some());
        let values = match value {
            Value::Array(items) if many => {
                items.iter().map(|item| scalar(key, item)).collect::<Result<_, _>>()?
            }
            Value::Array(_) => return Err(format!("{key} takes one value, not a list")),
            one => vec![scalar(key, one)?],
        };
        found.push((key.clone(), values));
    }
    Ok(found)
}

fn scalar(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(truth) => Ok(truth.to_string()),
        _ => Err(format!("{key} takes a text or a number, no {}", value.type_str())),
    }
}

fn with_defaults(command: Command, settings: Vec<Setting>) -> Command {
    settings.into_iter().fold(command, |command, (key, values)| {
        command.mut_arg(key, |arg| arg.default_values(values.into_iter().map(OsStr::from)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::NodeSettings;
    use std::io::Write;

    fn parse_node(file: &str, flags: &[&str]) -> Result<NodeSettings, String> {
        let mut config = tempfile::NamedTempFile::new().unwrap();
        config.write_all(file.as_bytes()).unwrap();
        let mut args: Vec<OsString> = ["holdfast", "node", "--config"].map(Into::into).to_vec();
        args.push(config.path().into());
        args.extend(flags.iter().map(Into::into));
        match parse(args) {
            Ok((cli, _)) => match cli.command {
                Some(crate::args::Command::Node(node)) => Ok(node.settings),
                other => panic!("{other:?}"),
            },
            Err(NotParsed::File(text)) => Err(text),
            Err(NotParsed::Usage(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn a_file_gives_what_flags_do_not() {
        let file = "name = 'n7'\nlisten = '127.0.0.7:1'\nlease_ms = 700\nwal_segments = 8\n\
                    seed = ['a:1', 'b:2']\ncapacity = '2GiB'\nnbd = 'none'\nvoters = 5\n\
                    disk = '/one'\n";
        let settings = parse_node(file, &["--lease-ms", "900"]).unwrap();
        assert_eq!(settings.name.as_deref(), Some("n7"));
        assert_eq!(settings.network.listen, "127.0.0.7:1".parse().unwrap());
        assert_eq!(settings.timing.lease_ms, 900, "a flag comes first");
        assert_eq!(settings.store.wal_segments, 8);
        assert_eq!(settings.network.seed, ["a:1", "b:2"]);
        assert_eq!(settings.store.capacity, Some(2 << 30));
        assert_eq!(settings.network.nbd.0, None);
        assert_eq!(settings.voters, 5);
        assert_eq!(settings.disks.disk, [Path::new("/one")]);
        let settings = parse_node(file, &["--seed", "c:3"]).unwrap();
        assert_eq!(settings.network.seed, ["c:3"], "instead of the file's, not beside them");
    }

    #[test]
    fn a_mistake_in_the_file_is_named() {
        for (file, words) in [
            ("leese_ms = 5", &["leese_ms", "lease_ms"][..]),
            ("lease_ms = 5", &["--lease-ms", "5"]),
            ("lease_ms = [5]", &["lease_ms", "list"]),
            ("lease_ms = 1.5", &["lease_ms"]),
            ("lease_ms = ", &["TOML", "lease_ms"]),
            ("config = 'x'", &["config"]),
            ("parent = 5", &["parent"]),
            ("seed = ['nowhere']", &["HOST:PORT"]),
        ] {
            let said = parse_node(file, &[]).unwrap_err();
            for word in words {
                assert!(said.contains(word), "{file}: {said}");
            }
        }
        let gone = parse(["holdfast", "node", "--config", "/no/such"].map(Into::into));
        assert!(
            matches!(&gone, Err(NotParsed::File(text)) if text.contains("/no/such")),
            "{gone:?}"
        );
    }
}
