//! Kinds of projects, by what is in their folders, and what builds them.

use std::path::Path;

/// A kind of project.
pub(crate) struct Kind {
    /// The file in its folder by which it is recognised.
    file: &'static str,
    pub(crate) name: &'static str,
    /// What builds it; a Cargo project may need more.
    pub(crate) command: &'static str,
    /// Where the modules are then, the likeliest first.
    pub(crate) outputs: &'static [&'static str],
}

/// Those of which a folder may also have the file of another kind come first.
const KINDS: [Kind; 6] = [
    Kind {
        file: "Cargo.toml",
        name: "a Cargo project",
        command: CARGO,
        outputs: &[
            "target/wasm32-wasip1/release",
            "target/wasm32-unknown-unknown/release",
        ],
    },
    Kind {
        file: "build.zig",
        name: "a Zig project",
        command: "zig build",
        outputs: &["zig-out/bin"],
    },
    Kind {
        file: "go.mod",
        name: "a Go module",
        command: "GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o room.wasm",
        outputs: &["."],
    },
    Kind {
        file: "asconfig.json",
        name: "an AssemblyScript project",
        command: "npm run build",
        outputs: &["build"],
    },
    Kind {
        file: "package.json",
        name: "an npm project",
        command: "npm run build",
        outputs: &["build", "dist"],
    },
    Kind {
        file: "Makefile",
        name: "a project with a Makefile",
        command: "make",
        outputs: &["."],
    },
];

/// What builds a Cargo project, for the target that its folder says or the default one.
pub(crate) const CARGO: &str = "cargo build --release";

/// The target of a Cargo project that names none: what rooms print, panics too, goes to the log there.
pub(crate) const DEFAULT_TARGET: &str = "wasm32-wasip1";

impl Kind {
    /// The kind of a folder.
    pub(crate) fn of(folder: &Path) -> Option<&'static Self> {
        KINDS.iter().find(|kind| folder.join(kind.file).is_file())
    }
}
