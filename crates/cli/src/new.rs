//! `stateroom-wasmi new`.

use crate::print;
use clap::{Args, ValueEnum};
use stateroom_wasmi_host::Escaped;
use std::{
    error::Error,
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

/// Create a folder with a room that can be built, tested and served
///
/// Its README.md says how.
#[derive(Args)]
pub(crate) struct New {
    /// The name of the room and of its folder, which must not exist
    name: String,
    /// The language
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
}

#[derive(Clone, Copy, ValueEnum)]
enum Language {
    /// Rust, with version 0.4 of the published SDK
    Rust,
    /// Rust, with version 0.2 of the published SDK
    #[value(name = "rust-0.2")]
    Rust0_2,
    C,
    #[value(name = "assemblyscript")]
    AssemblyScript,
    Go,
    Zig,
}

/// A file of a template: where it is in the room's folder, and what is in it.
type File = (&'static str, &'static str);

/// The files of a folder of templates, by their paths in there.
macro_rules! files {
    ($folder:literal, $($path:literal),*) => {
        [$(($path, include_str!(concat!("../templates/", $folder, "/", $path)))),*]
    };
}

/// By these names, templates hold where they are, too. `my_room` is what cargo makes of `my-room` for
/// the names of libraries.
const NAME: &str = "my-room";
const LIBRARY_NAME: &str = "my_room";

/// A script that the rooms of all languages pass.
const SCRIPT: File = ("room.test", include_str!("../templates/room.test"));

impl New {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let Self { name, lang } = self;
        check_name(&name).map_err(|reason| format!("{:?} {reason}", Escaped::new(&name)))?;
        let files = lang.files();
        let files = files.iter().chain([&SCRIPT]);
        let files = files.map(|(path, text)| (*path, with_name(text, &name)));
        create(Path::new(&name), files).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!("{name} exists, and is left as it is"),
            _ => format!("cannot create {name}: {error}"),
        })?;
        let readme = with_name(lang.readme(), &name);
        let next: String = commands(&readme)
            .map(|command| format!("  {command}\n"))
            .collect();
        print(&format!(
            "{name} is a room that counts. Next, with what {name}/README.md says is needed:\n\n  cd {name}\n{next}"
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Language {
    fn files(self) -> Vec<File> {
        // Under their own names, git would heed the first and cargo leave the folder of the second
        // out of the published package.
        let renamed = |(path, text): File| match path {
            "gitignore" => (".gitignore", text),
            "Cargo.toml.in" => ("Cargo.toml", text),
            path => (path, text),
        };
        let common = files!("rust", ".cargo/config.toml", "gitignore", "README.md");
        let files = match self {
            Self::Rust => [&common[..], &files!("rust", "Cargo.toml.in", "src/lib.rs")].concat(),
            Self::Rust0_2 => [
                &common[..],
                &files!("rust-0.2", "Cargo.toml.in", "src/lib.rs"),
            ]
            .concat(),
            Self::C => files!(
                "c",
                "gitignore",
                "Makefile",
                "README.md",
                "malloc.c",
                "room.c",
                "stateroom.h"
            )
            .into(),
            Self::AssemblyScript => files!(
                "assemblyscript",
                "gitignore",
                "README.md",
                "asconfig.json",
                "assembly/room.ts",
                "assembly/stateroom.ts",
                "assembly/tsconfig.json",
                "package.json"
            )
            .into(),
            Self::Go => files!(
                "go",
                "gitignore",
                "README.md",
                "go.mod",
                "room.go",
                "stateroom/stateroom.go"
            )
            .into(),
            Self::Zig => files!(
                "zig",
                "gitignore",
                "README.md",
                "build.zig",
                "src/room.zig",
                "src/stateroom.zig"
            )
            .into(),
        };
        files.into_iter().map(renamed).collect()
    }

    fn readme(self) -> &'static str {
        let files = self.files();
        let readme = files.iter().find(|(path, _)| *path == "README.md");
        readme.map_or("", |(_, text)| text)
    }
}

/// Names that are good in each language, as a folder on each system, and in a URL.
fn check_name(name: &str) -> Result<(), &'static str> {
    const MAX_BYTES: usize = 64;
    /// Files of these names are devices on Windows.
    const DEVICES: [&str; 4] = ["aux", "con", "nul", "prn"];
    let is_numbered_device = |prefix| {
        let number = name.strip_prefix(prefix);
        number.is_some_and(|number| number.len() == 1 && number.as_bytes()[0].is_ascii_digit())
    };
    let is_allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_');
    if name.is_empty() {
        return Err("is no name: it is empty");
    }
    if name.len() > MAX_BYTES {
        return Err("is too long a name: it may have 64 characters");
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(is_allowed) {
        return Err(
            "cannot be the name of a room: it must begin with a letter from a to z, followed by \
             such letters, digits, `-` and `_`. The folder is created where the command is run",
        );
    }
    if DEVICES.contains(&name) || is_numbered_device("com") || is_numbered_device("lpt") {
        return Err("is the name of a device on Windows");
    }
    // A package of npm cannot depend on one of its own name, and Go looks into such a folder for copies
    // of what a module depends on.
    if name == "assemblyscript" || name == "vendor" {
        return Err("has a meaning of its own in one of the languages");
    }
    Ok(())
}

/// A template's text for a room of this name.
fn with_name(text: &str, name: &str) -> String {
    // The other way round, the second would find its word in names as well.
    text.replace(LIBRARY_NAME, &name.replace('-', "_"))
        .replace(NAME, name)
}

/// The commands in a README, one a line.
fn commands(readme: &str) -> impl Iterator<Item = &str> {
    readme
        .lines()
        .skip_while(|line| *line != "```sh")
        .skip(1)
        .take_while(|line| *line != "```")
}

/// Creates a folder with these files, or nothing.
fn create<'a>(folder: &Path, mut files: impl Iterator<Item = (&'a str, String)>) -> io::Result<()> {
    // Fails if there is something of that name, so that all that is in it is ours.
    fs::create_dir(folder)?;
    let written = files.try_for_each(|(path, text)| write(&folder.join(path), &text));
    if written.is_err() {
        // What fails here does not matter beside the first error.
        let _ = fs::remove_dir_all(folder);
    }
    // It says that something exists only if that is the folder.
    written.map_err(|error| io::Error::other(error.to_string()))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::File::create_new(path)?.write_all(text.as_bytes())
}
