//! Where the flags of `serve` and `attach` have their values from, besides the command line: environment
//! variables and a configuration file.
//!
//! A flag `--max-rooms` is the variable `STATEROOM_MAX_ROOMS` and the key `max-rooms` of the file. A flag
//! overrides a variable, and that the file: what they say is put in front of the command line, unless that
//! has the flag.

use clap::{
    Arg, ArgAction, ArgMatches, Command, FromArgMatches,
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};
use stateroom_wasmi_host::Escaped;
use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fmt::Write,
    fs,
    path::PathBuf,
};

/// A command line, with the settings that complete it.
pub(crate) struct CommandLine {
    command: Command,
    matches: ArgMatches,
    settings: Settings,
}

impl CommandLine {
    /// Parses the command line of this process. Ends the process if that is wrong, or asks for help.
    ///
    /// # Errors
    ///
    /// If the configuration file cannot be read, or has a key that is no flag.
    pub(crate) fn parse(mut command: Command) -> Result<Self, String> {
        let args: Vec<_> = env::args_os().collect();
        let name = args.get(1).and_then(|name| name.to_str());
        let Some(name @ ("serve" | "dev" | "attach" | "config")) = name else {
            return Ok(Self {
                matches: command.get_matches_mut(),
                command,
                settings: Settings::default(),
            });
        };
        let subcommand = command.find_subcommand(name).ok_or("it has no settings")?;
        let mut settings = Settings::read(subcommand, &args)?;
        // Only which flags it has counts: what is wrong with them is found below.
        let flags = command.clone().ignore_errors(true);
        if let Ok(matches) = flags.try_get_matches_from(&args)
            && let Some((_, matches)) = matches.subcommand()
        {
            let is_flag = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
            settings.0.retain(|id, _| !is_flag(id));
        }
        let mut all = Vec::from(&args[..2]);
        all.extend(settings.args(subcommand)?);
        all.extend_from_slice(&args[2..]);
        let matches = command.try_get_matches_from_mut(all);
        Ok(Self {
            matches: matches.unwrap_or_else(|error| settings.exit(&error)),
            command,
            settings,
        })
    }

    /// The command line as a type of `clap`.
    pub(crate) fn parsed<T: FromArgMatches>(&self) -> T {
        T::from_arg_matches(&self.matches).unwrap_or_else(|error| error.exit())
    }

    /// All settings of the subcommand that are in force, as a configuration file that says where each is
    /// from.
    pub(crate) fn settings(&self) -> String {
        let Some((name, matches)) = self.matches.subcommand() else {
            return String::new();
        };
        let subcommand = self.command.find_subcommand(name);
        subcommand.map_or_else(String::new, |subcommand| {
            self.settings.list(subcommand, matches)
        })
    }
}

/// The values that are not from the command line, by the ids of their arguments.
#[derive(Debug, Default)]
struct Settings(BTreeMap<String, Setting>);

#[derive(Debug)]
struct Setting {
    values: Vec<OsString>,
    source: String,
}

/// What names the configuration file.
const CONFIG: &str = "config";

const PREFIX: &str = "STATEROOM_";

impl Settings {
    /// Reads what there is for the arguments of a subcommand.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or has a key that is no flag.
    fn read(subcommand: &Command, args: &[OsString]) -> Result<Self, String> {
        let mut settings = Self::default();
        if let Some(file) = config_file(args) {
            settings.read_file(subcommand, &file)?;
        }
        for arg in subcommand.get_arguments() {
            let Some(name) = variable(arg) else { continue };
            // What platforms set that choose the port themselves.
            let names: &[&str] = match arg.get_long() {
                Some("port") => &[&name, "PORT"],
                _ => &[&name],
            };
            let set = names
                .iter()
                .find_map(|name| Some((name, env::var_os(name)?)))
                // As good as not set.
                .filter(|(_, value)| !value.is_empty());
            if let Some((name, value)) = set {
                let values = match arg.get_action() {
                    ArgAction::Append => split(&value),
                    _ => Vec::from([value]),
                };
                settings.set(arg, values, format!("the variable {name}"));
            }
        }
        Ok(settings)
    }

    fn set(&mut self, arg: &Arg, values: Vec<OsString>, source: String) {
        let id = arg.get_id().to_string();
        self.0.insert(id, Setting { values, source });
    }

    fn read_file(&mut self, subcommand: &Command, file: &PathBuf) -> Result<(), String> {
        let name = format!("{:?}", Escaped::new(file.display()));
        let text = fs::read_to_string(file)
            .map_err(|error| format!("cannot read the configuration file {name}: {error}"))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            // It quotes a line of the file.
            let error = Escaped::new(error).keep_lines().at_most(1000);
            format!("the configuration file {name}: {error}")
        })?;
        for (key, value) in table {
            let arg = subcommand
                .get_arguments()
                .find(|arg| key_of(arg) == Some(&*key));
            let arg = arg.ok_or_else(|| {
                let key = Escaped::new(&key);
                format!("the configuration file {name}: there is no flag for the key {key:?}")
            })?;
            let values = match value {
                toml::Value::Array(values) if matches!(arg.get_action(), ArgAction::Append) => {
                    values.iter().map(scalar).collect()
                }
                value => scalar(&value).map(|value| Vec::from([value])),
            };
            let values = values.ok_or_else(|| {
                let key = Escaped::new(&key);
                format!("the configuration file {name}: the value of {key:?} is of the wrong type")
            })?;
            self.set(arg, values, format!("the file {name}"));
        }
        Ok(())
    }

    /// The values as arguments.
    fn args(&self, subcommand: &Command) -> Result<Vec<OsString>, String> {
        let mut args = Vec::new();
        for arg in subcommand.get_arguments() {
            let Some(Setting { values, source }) = self.0.get(arg.get_id().as_str()) else {
                continue;
            };
            for value in values {
                let Some(long) = arg.get_long() else {
                    args.push(value.clone());
                    continue;
                };
                if arg.get_action().takes_values() {
                    let mut arg = OsString::from(format!("--{long}="));
                    arg.push(value);
                    args.push(arg);
                } else {
                    match value.to_str() {
                        Some("true" | "1") => args.push(format!("--{long}").into()),
                        Some("false" | "0") => {}
                        _ => {
                            return Err(format!(
                                "--{long} is true or false, and not what {source} says"
                            ));
                        }
                    }
                }
            }
        }
        Ok(args)
    }

    /// Prints what is wrong with the command line, and ends the process.
    fn exit(&self, error: &clap::Error) -> ! {
        let _ = error.print();
        if let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) {
            let flag = arg.split([' ', '=']).next().unwrap_or_default();
            let id = flag.trim_start_matches('-').replace('-', "_");
            if let Some(setting) = self.0.get(&id) {
                eprintln!("\n{flag} is from {}", Escaped::new(&setting.source));
            }
        }
        std::process::exit(error.exit_code())
    }

    fn list(&self, subcommand: &Command, matches: &ArgMatches) -> String {
        let mut text = String::new();
        for arg in subcommand.get_arguments() {
            let (Some(key), id) = (key_of(arg), arg.get_id().as_str()) else {
                continue;
            };
            let Some(values) = matches.get_raw(id) else {
                let _ = writeln!(text, "# {key} is not set");
                continue;
            };
            let source = match (matches.value_source(id), self.0.get(id)) {
                (_, Some(setting)) => &setting.source,
                (Some(ValueSource::CommandLine), None) => "the command line",
                _ => "the default",
            };
            // Not set in the file that this is: some flags need others.
            let comment = if source == "the default" { "# " } else { "" };
            let values: Vec<_> = values.map(|value| literal(arg, value)).collect();
            let value = match arg.get_action() {
                ArgAction::Append => format!("[{}]", values.join(", ")),
                _ => values.join(", "),
            };
            let _ = writeln!(text, "{comment}{key} = {value} # {source}");
        }
        text
    }
}

/// The file that the command line or else the environment names.
fn config_file(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            break;
        }
        if arg == "--config" {
            return args.next().map(PathBuf::from);
        }
        if let Some(file) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            return Some(file.into());
        }
    }
    env::var_os(format!("{PREFIX}CONFIG")).map(PathBuf::from)
}

/// The key of an argument in the file: its long flag, or what the module is called.
fn key_of(arg: &Arg) -> Option<&str> {
    match arg.get_long() {
        Some(CONFIG | "help" | "version") => None,
        Some(long) => Some(long),
        None if arg.is_positional() => Some(arg.get_id().as_str()),
        None => None,
    }
}

/// The environment variable of an argument.
fn variable(arg: &Arg) -> Option<String> {
    let name = key_of(arg)?.replace('-', "_").to_ascii_uppercase();
    Some(format!("{PREFIX}{name}"))
}

/// The elements of a list.
fn split(value: &OsStr) -> Vec<OsString> {
    match value.to_str() {
        Some(text) => text.split(',').map(|value| value.trim().into()).collect(),
        None => Vec::from([value.into()]),
    }
}

fn scalar(value: &toml::Value) -> Option<OsString> {
    Some(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.to_string().into(),
        toml::Value::Boolean(is_on) => is_on.to_string().into(),
        _ => return None,
    })
}

/// A value as it is written in the file.
fn literal(arg: &Arg, value: &OsStr) -> String {
    let text = value.to_string_lossy();
    let is_flag = !arg.get_action().takes_values();
    let is_number = text
        .parse::<i64>()
        .is_ok_and(|number| number.to_string() == text);
    match is_flag || is_number {
        true => text.into(),
        false => toml::Value::String(text.into()).to_string(),
    }
}
