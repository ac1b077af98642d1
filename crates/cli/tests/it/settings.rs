//! Where flags have their values from: the command line, environment variables, a configuration file.

use super::{Server, TempDir, bundled_path, eventually};
use std::process::{Command, Output};
use tokio::time::sleep;

/// Runs the tool with these variables, and none else of its own.
fn tool_with(variables: &[(&str, &str)], args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"))
        .args(args)
        .env_remove("PORT")
        .envs(variables.iter().copied())
        .output()
        .expect("cannot run the tool")
}

fn config(variables: &[(&str, &str)], args: &[&str]) -> String {
    let output = tool_with(variables, &[&["config"], args].concat());
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn assert_line(text: &str, line: &str) {
    assert!(
        text.lines().any(|found| found == line),
        "{line:?} in\n{text}"
    );
}

#[test]
fn a_flag_overrides_a_variable_and_that_the_file() {
    let folder = TempDir::new();
    let file = folder.write(
        "stateroom.toml",
        "module = 'room.wasm'\nport = 1\nmax-rooms = 2\nmax-clients = 3\nkeep-timers = true\n\
         allow-origin = ['https://a.example', 'https://b.example']\nhost = ['::1']\n",
    );
    let file = file.to_str().expect("a path");
    let variables = [
        ("STATEROOM_PORT", "4"),
        ("PORT", "5"),
        ("STATEROOM_MAX_ROOMS", "6"),
        ("STATEROOM_HOST", "127.0.0.1, localhost"),
        ("STATEROOM_ALLOW_ORIGIN", ""),
    ];
    let text = config(&variables, &["--config", file, "--port", "7"]);
    let from_file = format!("the file {file:?}");
    assert_line(&text, "port = 7 # the command line");
    assert_line(&text, "max-rooms = 6 # the variable STATEROOM_MAX_ROOMS");
    assert_line(&text, &format!("max-clients = 3 # {from_file}"));
    assert_line(&text, &format!("keep-timers = true # {from_file}"));
    assert_line(&text, &format!("module = \"room.wasm\" # {from_file}"));
    let origins = "[\"https://a.example\", \"https://b.example\"]";
    assert_line(&text, &format!("allow-origin = {origins} # {from_file}"));
    let hosts = "[\"127.0.0.1\", \"localhost\"]";
    assert_line(
        &text,
        &format!("host = {hosts} # the variable STATEROOM_HOST"),
    );
    assert_line(&text, "# max-connections = 10000 # the default");
    assert_line(&text, "# data is not set");

    // What is printed is a file that says the same.
    let again = folder.write("again.toml", &text);
    let again = config(&[], &["--config", again.to_str().expect("a path")]);
    let values = |text: &str| -> Vec<String> {
        let settings = text
            .lines()
            .map(|line| line.split(" # ").next().expect("one"));
        settings.map(str::to_owned).collect()
    };
    assert_eq!(values(&again), values(&text));

    // A flag that needs another one finds it wherever it is from, and misses it if it is nowhere.
    let needs = ["room.wasm", "--durability", "relaxed"];
    let text = config(&[("STATEROOM_DATA", "rooms")], &needs);
    assert_line(&text, "data = \"rooms\" # the variable STATEROOM_DATA");
    let output = tool_with(&[], &[&["config"][..], &needs].concat());
    assert!(!output.status.success());

    let by_variable = [("STATEROOM_CONFIG", file), ("PORT", "5")];
    let text = config(&by_variable, &["other.wasm"]);
    assert_line(&text, "port = 5 # the variable PORT");
    assert_line(&text, "module = \"other.wasm\" # the command line");
    assert_line(&text, &format!("max-rooms = 2 # {from_file}"));
}

#[test]
fn wrong_settings_are_refused() {
    let folder = TempDir::new();
    for (content, expected) in [
        ("prot = 8080", "no flag for the key \"prot\""),
        ("config = 'x'", "no flag for the key \"config\""),
        ("help = true", "no flag for the key \"help\""),
        (
            "port = [1, 2]",
            "the value of \"port\" is of the wrong type",
        ),
        ("port = 1.5", "the value of \"port\" is of the wrong type"),
        ("[serve]\nport = 1", "no flag for the key \"serve\""),
        ("port =", "configuration file"),
        ("port = \u{1b}[2J", "\\x1b[2J"),
        ("port = 70000", "70000"),
        ("keep-timers = 'perhaps'", "--keep-timers is true or false"),
        ("\"\\u001b[2J\" = 1", "no flag for the key \"\\x1b[2J\""),
    ] {
        let file = folder.write("stateroom.toml", content);
        let file = file.to_str().expect("a path");
        let output = tool_with(&[], &["config", "room.wasm", "--config", file]);
        assert!(!output.status.success(), "{content}");
        let error = String::from_utf8(output.stderr).expect("text");
        assert!(error.contains(expected), "{content}: {error}");
    }
    let output = tool_with(&[], &["config", "room.wasm", "--config", "/nowhere"]);
    assert!(!output.status.success());
    let output = tool_with(&[("STATEROOM_PORT", "x")], &["config", "room.wasm"]);
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(
        error.contains("--port is from the variable STATEROOM_PORT"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_is_configured_by_its_environment() {
    let folder = TempDir::new();
    let module = bundled_path("counter-c");
    let file = folder.write(
        "stateroom.toml",
        format!(
            "module = {:?}\nworkers = 1\nmax-clients = 1\n",
            module.display().to_string()
        ),
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"));
    command
        .arg("serve")
        .env("STATEROOM_CONFIG", file)
        .env("STATEROOM_LOG_FORMAT", "json");
    let server = Server::listening(command);
    let [_client] = server.join_all("r").await;
    assert_eq!(server.join("/r").await.closed().await.0, 1013);
    // Each line of the log is an object.
    let logged = async {
        while server.log.lock().expect("not poisoned").lines().count() < 1 {
            sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    eventually("a line of the log", logged).await;
    let log = server.log.lock().expect("not poisoned").clone();
    let line: serde_json::Value =
        serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["target"], "stateroom_wasmi_server");
    let message = line["message"].as_str().expect("a text");
    assert!(message.starts_with("serving counter-c.wasm"), "{message}");
}

#[test]
fn shells_and_manuals_know_all_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = tool_with(&[], &["completions", shell]);
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).expect("text");
        assert!(script.contains("max-rooms"), "{script}");
    }
    let folder = TempDir::new();
    let dir = folder.0.join("man");
    let output = tool_with(&[], &["man", dir.to_str().expect("a path")]);
    assert!(output.status.success());
    let page = std::fs::read_to_string(dir.join("stateroom-wasmi-serve.1")).expect("a page");
    assert!(page.contains("max\\-rooms"), "{page}");
}
