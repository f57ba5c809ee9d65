//! Child processes: said before they run, printed whole when they fail.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use anyhow::{Result, bail};

/// Tells the person which step begins.
pub fn step(text: impl fmt::Display) {
    eprintln!("==> {text}");
}

/// Tells the person a detail of the present step.
pub fn note(text: impl fmt::Display) {
    eprintln!("    {text}");
}

/// A command to be, which can print itself as a person would type it.
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    /// Variables that are removed without being printed: a person's own shell does not have them.
    forget: Vec<OsString>,
    dir: Option<PathBuf>,
}

impl Cmd {
    /// A command without arguments, in this process's environment and folder.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            forget: Vec::new(),
            dir: None,
        }
    }

    /// The cargo that runs this program: never rustup's proxy, so no toolchain file captures or installs anything.
    ///
    /// What cargo told this program about itself is removed: some build scripts watch such variables, and their crates
    /// would be built again whenever a person changes between `cargo` and `cargo xtask`.
    pub fn cargo() -> Self {
        let mut cmd = Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cmd.forget = std::env::vars_os()
            .map(|(key, _)| key)
            .filter(|key| is_of_cargo_run(key))
            .collect();
        cmd
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the child's environment.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((key.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Removes a variable from the child's environment.
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), None));
        self
    }

    /// Sets the child's folder.
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Runs with this process's terminal. No input is given, so that nothing waits for an answer.
    ///
    /// # Errors
    ///
    /// When the program is missing or ends with another status than 0; the text holds the whole command.
    pub fn run(&self) -> Result<()> {
        let status = self.status()?;
        if !status.success() {
            bail!("this command failed ({status}):\n  {self}");
        }
        Ok(())
    }

    /// Runs with this process's terminal and returns how the child ended.
    ///
    /// # Errors
    ///
    /// When the program can't be started.
    pub fn status(&self) -> Result<ExitStatus> {
        self.started(self.build().stdin(Stdio::null()).status())
    }

    /// Runs and returns standard output as text.
    ///
    /// # Errors
    ///
    /// When the program is missing or ends with another status than 0; the text holds the whole command and what it
    /// wrote.
    pub fn read(&self) -> Result<String> {
        let output = self.output()?;
        if !output.status.success() {
            bail!(
                "this command failed ({}):\n  {self}\n{}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs and returns what the child wrote, however it ended.
    ///
    /// # Errors
    ///
    /// When the program can't be started.
    pub fn output(&self) -> Result<Output> {
        self.started(self.build().stdin(Stdio::null()).output())
    }

    /// The command for the standard library, for callers that wire its streams themselves.
    pub fn build(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        for key in &self.forget {
            command.env_remove(key);
        }
        for (key, value) in &self.env {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    fn started<T>(&self, result: std::io::Result<T>) -> Result<T> {
        result.map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow::anyhow!(
                "`{}` is not on this machine (or the folder is missing); it was to run:\n  {self}",
                self.program.to_string_lossy()
            ),
            _ => anyhow::Error::from(error).context(format!("can't start:\n  {self}")),
        })
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(dir) = &self.dir {
            write!(f, "cd {} && ", quoted(dir.as_os_str()))?;
        }
        for (key, value) in &self.env {
            match value {
                Some(value) => write!(f, "{}={} ", key.to_string_lossy(), quoted(value))?,
                None => write!(f, "{}= ", key.to_string_lossy())?,
            }
        }
        write!(f, "{}", quoted(&self.program))?;
        for arg in &self.args {
            write!(f, " {}", quoted(arg))?;
        }
        Ok(())
    }
}

/// Whether cargo sets this variable for a program that it runs (cargo reference, "environment variables").
fn is_of_cargo_run(key: &OsStr) -> bool {
    let key = key.to_string_lossy();
    ["CARGO_PKG_", "CARGO_MANIFEST_"]
        .iter()
        .any(|prefix| key.starts_with(prefix))
        || [
            "CARGO_CRATE_NAME",
            "CARGO_BIN_NAME",
            "CARGO_PRIMARY_PACKAGE",
            "OUT_DIR",
        ]
        .contains(&&*key)
}

/// A word as a shell needs it.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    // A control character (cargo's separator of encoded flags) is written so that a shell reads it back.
    if word.chars().any(char::is_control) {
        let escaped: String = word
            .chars()
            .map(|c| {
                if c.is_control() {
                    format!("\\x{:02x}", u32::from(c))
                } else {
                    c.to_string()
                }
            })
            .collect();
        return format!("$'{}'", escaped.replace('\'', "\\'"));
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_prints_as_it_would_be_typed() {
        let cmd = Cmd::new("cargo")
            .arg("build")
            .arg("two words")
            .env("A", "it's")
            .dir("/x");
        assert_eq!(cmd.to_string(), r"cd /x && A='it'\''s' cargo build 'two words'");
        assert_eq!(Cmd::new("a").arg("b\u{1f}c").to_string(), r"a $'b\x1fc'");
        assert_eq!(Cmd::new("a").arg("").to_string(), "a ''");
    }

    #[test]
    fn a_failure_holds_the_whole_command_and_its_output() {
        let error = Cmd::new("sh")
            .args(["-c", "echo out; echo err >&2; exit 3"])
            .read()
            .unwrap_err()
            .to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(
            error.contains("sh -c 'echo out; echo err >&2; exit 3'"),
            "{error}"
        );
        assert!(error.contains("out\n") && error.contains("err\n"), "{error}");
    }

    #[test]
    fn only_what_cargo_run_sets_is_forgotten() {
        for (key, forgotten) in [
            ("CARGO_PKG_NAME", true),
            ("CARGO_MANIFEST_DIR", true),
            ("CARGO_HOME", false),
            ("PATH", false),
        ] {
            assert_eq!(is_of_cargo_run(OsStr::new(key)), forgotten, "{key}");
        }
        assert!(
            Cmd::cargo().forget.iter().any(|key| key == "CARGO_PKG_NAME"),
            "cargo test sets it too"
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Cmd::new("no-such-program-here").run().unwrap_err().to_string();
        assert!(
            error.contains("`no-such-program-here` is not on this machine"),
            "{error}"
        );
    }
}
