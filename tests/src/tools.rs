//! Runs other people's programs and keeps what they said.

use crate::{Error, Result};
use std::process::{Command, Output};

/// What a program printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a program to its end, whatever its exit code.
///
/// # Errors
/// When it cannot be started, for one that is not installed.
pub fn run(command: &mut Command) -> Result<Said> {
    let shown = shown(command);
    let output = command.output().map_err(Error::io(format!("run {shown}")))?;
    Ok(said(&output))
}

/// Runs a program that must succeed; returns its standard output.
///
/// # Errors
/// With all that it printed, when it does not.
pub fn succeed(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let Said { code, out, err } = run(command)?;
    if code != 0 {
        return Err(Error::Tool(format!("{shown}\nexit code {code}\n{out}\n{err}")));
    }
    Ok(out)
}

/// `command!("qemu-img", "info", uri)`: a [`Command`] with its arguments.
#[macro_export]
macro_rules! command {
    ($program:expr $(, $arg:expr)* $(,)?) => {{
        let mut command = ::std::process::Command::new($program);
        $(command.arg($arg);)*
        command
    }};
}

fn said(output: &Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
