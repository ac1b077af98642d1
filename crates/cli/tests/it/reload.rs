//! Modules that change while they are served: `serve --watch`, SIGHUP and `dev`.

use super::{Client, Server, TempDir, eventually};
use crate::support::{ENV, guest_0_2};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A guest that replies to each text with its letter and how many it had, and greets each client.
fn guest(letter: char) -> String {
    let say =
        |length| format!("(call $send_message (local.get 0) (i32.const 0) (i32.const {length}))");
    let message = format!(
        "(global.set $texts (i32.add (global.get $texts) (i32.const 1)))
         (i32.store8 (i32.const 1) (i32.add (i32.const 48) (global.get $texts))) {}",
        say(2)
    );
    guest_0_2(
        ENV,
        &[("connect", &say(1)), ("message", &message)],
        &format!("(global $texts (mut i32) (i32.const 0)) (data (i32.const 0) \"{letter}\")"),
    )
}

/// Writes a file as editors do: all at once.
fn replace(folder: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = folder.0.join(name);
    let new = folder.write(&format!("{name}.tmp"), content);
    std::fs::rename(new, &path).expect("it is renamed");
    path
}

async fn says(client: &mut Client, text: &str) {
    client.send("x").await;
    client.expect(text).await;
}

fn serve(module: &Path, args: &[&str]) -> Server {
    Server::start(module, args)
}

#[tokio::test]
async fn a_watched_module_is_read_again_and_clients_stay() {
    let folder = TempDir::new();
    let module = replace(&folder, "room.wat", &guest('a'));
    let server = serve(&module, &["--watch"]);
    let mut client = server.join("/r").await;
    client.expect("a").await;
    says(&mut client, "a1").await;
    replace(&folder, "room.wat", &guest('b'));
    // The fresh guest is told of the client.
    client.expect("b").await;
    says(&mut client, "b1").await;
    // What cannot be served changes nothing.
    replace(&folder, "room.wat", "(module (func (export \"message\")))");
    server.until_logged("the module stays as it was").await;
    says(&mut client, "b2").await;
    let notice = server.get("/rooms").await.body;
    assert!(notice.contains("The module stays as it was"), "{notice}");
    replace(&folder, "room.wat", &guest('c'));
    client.expect("c").await;
    let mut other = server.join("/other").await;
    other.expect("c").await;
    assert!(!server.get("/rooms").await.body.contains("notice"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_hangup_reads_the_module_again() {
    let folder = TempDir::new();
    let module = replace(&folder, "room.wat", &guest('a'));
    let server = serve(
        &module,
        &["--hibernate-after", "1", "--on-fault", "rollback"],
    );
    let mut client = server.join("/r").await;
    client.expect("a").await;
    replace(&folder, "room.wat", &guest('b'));
    says(&mut client, "a1").await;
    // Also a room that sleeps.
    server
        .until_room("r", "it hibernates", |room| {
            room.is_some_and(|room| room["state"] == "hibernating")
        })
        .await;
    server.signal("-HUP");
    client.expect("b").await;
    says(&mut client, "b1").await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_stored_room_is_one_of_the_module_that_it_goes_on_with() {
    let folder = TempDir::new();
    let module = replace(&folder, "room.wat", &guest('a'));
    let data = folder.0.join("data");
    let args = ["--watch", "--data", data.to_str().expect("a path")];
    let mut server = serve(&module, &args);
    let mut client = server.join("/r?token=t").await;
    client.expect("a").await;
    says(&mut client, "a1").await;
    replace(&folder, "room.wat", &guest('b'));
    client.expect("b").await;
    says(&mut client, "b1").await;
    says(&mut client, "b2").await;
    server.signal("-KILL");
    server.exited().await;
    // It was killed: what it had written counts. A room of another module would be refused.
    let server = serve(&module, &args);
    let mut client = server.join("/r?token=t").await;
    client.expect("b").await;
    says(&mut client, "b3").await;
}

/// A server of `dev`, with the folder and these flags.
fn dev(folder: &TempDir, args: &[&str]) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"));
    command
        .arg("dev")
        .arg(&folder.0)
        .args(["--workers", "1"])
        .args(args);
    Server::listening(command)
}

#[cfg(unix)]
#[tokio::test]
async fn sources_that_change_are_built_again() {
    let folder = TempDir::new();
    replace(&folder, "room.txt", &guest('a'));
    let out = folder.0.join("out.wat");
    let build = "grep -q module room.txt || { echo 'room.txt:1: no \u{1b}[2Jmodule' >&2; exit 3; }; \
                 cp room.txt out.wat";
    let data = folder.0.join("rooms");
    let args = [
        "--build",
        build,
        "--module",
        out.to_str().expect("a path"),
        "--data",
        data.to_str().expect("a path"),
    ];
    let server = dev(&folder, &args);
    let mut client = server.join("/r").await;
    client.expect("a").await;
    replace(&folder, "room.txt", &guest('b'));
    client.expect("b").await;
    replace(&folder, "room.txt", "no room");
    server.until_logged("has failed").await;
    let notice = async {
        loop {
            let body = server.get("/rooms").await.body;
            if body.contains("room.txt:1: no \\\\x1b[2Jmodule") {
                return;
            }
            assert!(!body.contains('\u{1b}'));
        }
    };
    eventually("the page shows why", notice).await;
    says(&mut client, "b1").await;
    replace(&folder, "room.txt", &guest('c'));
    client.expect("c").await;
    let gone = async { while server.get("/rooms").await.body.contains("notice") {} };
    eventually("the page shows nothing any more", gone).await;
    // Nothing that the build or the server has written has started another one.
    let built = |log: &str| log.matches("building").count();
    let before = built(&server.log.lock().expect("not poisoned"));
    for count in 1..=9 {
        says(&mut client, &format!("c{count}")).await;
    }
    assert_eq!(built(&server.log.lock().expect("not poisoned")), before);
}

#[cfg(unix)]
#[tokio::test]
async fn cargo_says_what_it_has_built() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new();
    let wasm = wat::parse_str(guest('a')).expect("it is valid");
    let module = folder.write("target/wasm32-unknown-unknown/release/room.wasm", wasm);
    folder.write("Cargo.toml", "[package]\nname = \"room\"\n");
    // In place of a compiler for the target, which not every machine has.
    let cargo = folder.write(
        "bin/cargo",
        format!(
            "#!/bin/sh\necho \"$@\" >> \"$(dirname \"$0\")/calls\"\n\
             echo '{{\"reason\":\"compiler-artifact\",\"filenames\":[\"librest.rlib\"]}}'\n\
             echo '{{\"reason\":\"compiler-artifact\",\"filenames\":[{:?}]}}'\n\
             echo '{{\"reason\":\"build-finished\",\"success\":true}}'\n",
            module.display().to_string()
        ),
    );
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let path = std::env::var("PATH").unwrap_or_default();
    let bin = folder.0.join("bin");
    let serve = |folder: &TempDir| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"));
        command.env("PATH", format!("{}:{path}", bin.display()));
        command.arg("dev").arg(&folder.0).args(["--workers", "1"]);
        Server::listening(command)
    };
    let calls = || std::fs::read_to_string(bin.join("calls")).expect("it was called");
    let server = serve(&folder);
    server.join("/r").await.expect("a").await;
    assert!(calls().contains("build --release"), "{}", calls());
    assert!(calls().contains("--target wasm32-wasip1"), "{}", calls());
    drop(server);
    // As Stateroom's own tool is configured, and with a target of its own.
    std::fs::remove_file(bin.join("calls")).expect("it is there");
    folder.write(
        "stateroom.toml",
        "static_files = \"public\"\n[service]\npackage = \"room\"\n",
    );
    folder.write("public/index.html", "the game");
    folder.write(
        ".cargo/config.toml",
        "[build]\ntarget = \"wasm32-wasip1\"\n",
    );
    let server = serve(&folder);
    assert_eq!(server.get("/").await.body, "the game");
    assert!(calls().contains("--package room"), "{}", calls());
    assert!(!calls().contains("--target"), "{}", calls());
}

/// A project with a client, and commands in place of those that build it, which not every machine has. They
/// need nothing but a shell, so that `PATH` has nothing else.
#[cfg(unix)]
struct ClientProject(TempDir);

#[cfg(unix)]
impl ClientProject {
    fn new() -> Self {
        let project = Self(TempDir::new());
        let folder = &project.0;
        let room = wat::parse_str(guest('a')).expect("it is valid");
        folder.write("target/wasm32-unknown-unknown/release/room.wasm", room);
        folder.write("target/wasm32-unknown-unknown/release/my_client.wasm", "");
        folder.write("Cargo.toml", "[package]\nname = \"room\"\n");
        folder.write(
            "Cargo.lock",
            "version = 4\n[[package]]\nname = \"wasm-bindgen\"\nversion = \"0.2.99\"\n",
        );
        // The room is the folder's own package.
        folder.write(
            "stateroom.toml",
            "[client]\npackage = \"my-client\"\noptimization_level = \"s\"\n",
        );
        folder.write("client/source", "one\n");
        project.command(
            "cargo",
            "case \"$*\" in
             *locate-project*) echo \"$root/Cargo.toml\"; exit ;;
             *'--target wasm32-unknown-unknown --package my-client'*) module=my_client ;;
             *) module=room ;;
             esac
             echo \"{\\\"filenames\\\":[\\\"$root/target/wasm32-unknown-unknown/release/$module.wasm\\\"]}\"",
        );
        project.bindgen("0.2.99");
        project.command(
            "wasm-opt",
            "[ \"$1\" != --version ] || exit 0
             read -r module < \"$1\"
             echo \"$module $4\" > \"$3\"",
        );
        project
    }

    fn command(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let text = format!("#!/bin/sh\nset -e\nroot=${{0%/*}}/..\n{script}\n");
        let file = replace(&self.0, &format!("bin/{name}"), &text);
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    }

    /// A `wasm-bindgen` of this version.
    fn bindgen(&self, version: &str) {
        self.command(
            "wasm-bindgen",
            &format!(
                "[ \"$1\" != --version ] || {{ echo 'wasm-bindgen {version}'; exit; }}
                 read -r source < \"$root/client/source\"
                 [ \"$source\" != broken ] || {{ echo 'source:1: a \u{1b}[2Jlie' >&2; exit 1; }}
                 [ \"$1 $2 $3\" = '--target web --out-dir' ]
                 [ -d \"$4\" ] || /bin/mkdir \"$4\"
                 echo \"$source\" > \"$4/my_client.js\"
                 echo module > \"$4/my_client_bg.wasm\""
            ),
        );
    }

    fn tool(&self, command: &str) -> Command {
        let mut tool = Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"));
        tool.env("PATH", self.0.0.join("bin"));
        tool.arg(command).arg(&self.0.0);
        tool
    }

    /// Builds it once; returns whether that succeeds, and the log.
    fn build(&self) -> (bool, String) {
        let output = self.tool("build").output().expect("it runs");
        let log = String::from_utf8_lossy(&output.stderr).into();
        (output.status.success(), log)
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_client_is_built_and_served_and_rooms_do_not_notice() {
    let project = ClientProject::new();
    project.bindgen("0.2.98");
    let mut dev = project.tool("dev");
    dev.args(["--workers", "1"]);
    let mut server = Server::spawn(dev);
    server.read_log();
    // Before there is anything to serve.
    server
        .until_logged("cargo install wasm-bindgen-cli --version 0.2.99")
        .await;
    project.bindgen("0.2.99");
    assert!(server.has_address());
    let js = "/client/my_client.js";
    assert_eq!(server.get(js).await.body, "one\n");
    let module = server.get("/client/my_client_bg.wasm").await;
    assert_eq!(module.body, "module -Os\n");
    assert!(module.head.contains("content-type: application/wasm"));
    for other in ["/client", "/client/", "/client/../Cargo.toml", "/clients"] {
        assert_eq!(server.get(other).await.status, 404, "{other}");
    }
    let page = server.get("/").await.body;
    assert!(page.starts_with("<!doctype html>"));

    let mut client = server.join("/r").await;
    client.expect("a").await;
    says(&mut client, "a1").await;
    replace(&project.0, "client/source", "two\n");
    let rebuilt = async { while server.get(js).await.body != "two\n" {} };
    eventually("the client is built again", rebuilt).await;
    replace(&project.0, "client/source", "broken\n");
    let shown = async {
        let why = "source:1: a \\\\x1b[2Jlie";
        while !server.get("/rooms").await.body.contains(why) {}
    };
    eventually("the page shows why", shown).await;
    server.until_logged("source:1: a \\x1b[2Jlie").await;
    assert_eq!(server.get(js).await.body, "two\n");
    replace(&project.0, "client/source", "three\n");
    let gone = async { while server.get("/rooms").await.body.contains("notice") {} };
    eventually("the page shows nothing any more", gone).await;
    assert_eq!(server.get(js).await.body, "three\n");
    // It was not restarted for any of that.
    says(&mut client, "a2").await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_client_is_built_into_the_folder_that_is_served() {
    let project = ClientProject::new();
    project.0.write("static/index.html", "the game");
    let (is_built, log) = project.build();
    assert!(is_built, "{log}");
    let server = serve(&project.0.0.join("dist"), &[]);
    assert_eq!(server.get("/").await.body, "the game");
    assert_eq!(server.get("/client/my_client.js").await.body, "one\n");
    let module = server.get("/client/my_client_bg.wasm").await;
    assert_eq!(module.body, "module -Os\n");
    drop(server);

    let bin = |name: &str| project.0.0.join("bin").join(name);
    std::fs::remove_file(bin("wasm-opt")).expect("it is there");
    let (is_built, log) = project.build();
    assert!(is_built && log.contains("not optimised"), "{log}");
    std::fs::remove_file(bin("wasm-bindgen")).expect("it is there");
    let (is_built, log) = project.build();
    assert!(!is_built && log.contains("is not installed"), "{log}");
    assert!(log.contains("wasm-bindgen-cli --version 0.2.99"), "{log}");
    project.0.write("Cargo.lock", "version = 4\n");
    let (is_built, log) = project.build();
    assert!(!is_built && log.contains("depend on wasm-bindgen"), "{log}");
    project.0.write(
        "stateroom.toml",
        "[client]\npackage = \"my-client\"\noptimization_level = \"fast\"\n",
    );
    let (is_built, log) = project.build();
    assert!(!is_built && log.contains("0 to 4, s and z"), "{log}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_room_is_built_into_a_folder_that_is_served() {
    let folder = TempDir::new();
    let wasm = wat::parse_str(guest('a')).expect("it is valid");
    folder.write("source", wasm);
    folder.write("static/pages/one.html", "one");
    let path = folder.0.to_str().expect("a path");
    let build = ["build", path, "--build", "cp source room.wasm"];
    let output = super::tool(&build);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let server = serve(&folder.0.join("dist"), &["--room-idle", "never"]);
    assert_eq!(server.get("/pages/one.html").await.body, "one");
    server.join("/r").await.expect("a").await;
    // What is no module is not written over one that is.
    folder.write("source", "a text");
    assert!(!super::tool(&build).status.success());
    assert!(
        !super::tool(&["build", path, "--build", "exit 3"])
            .status
            .success()
    );
    serve(&folder.0.join("dist"), &[]);
}

#[test]
fn a_folder_that_does_not_tell_how_it_is_built_is_refused() {
    let folder = TempDir::new();
    let output = super::tool(&["dev", folder.0.to_str().expect("a path")]);
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(error.contains("--build"), "{error}");
}
