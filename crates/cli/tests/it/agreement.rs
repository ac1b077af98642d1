//! `check` and `serve` agree: what the one says, the other does, on every module.

use super::{Client, Server, TempDir, bundled_path, tool};
use crate::support::{ENV, assemble, echo, guest_0_2, guest_0_4};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Whether `check` says that a module can be served.
fn checks(module: &Path, flags: &[&str]) -> bool {
    let module = module.to_str().expect("UTF-8");
    match tool(&[&["check", module], flags].concat()).status.code() {
        Some(0) => true,
        Some(1) => false,
        status => panic!("{module}: {status:?}"),
    }
}

/// Whether a server starts, and its rooms with the shortest and the longest id admit a client.
async fn serves(module: &Path, flags: &[&str]) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"));
    command.arg("serve").arg(module).args(["--workers", "1"]);
    command.args(flags);
    let Some(server) = Server::try_listening(command) else {
        return false;
    };
    admits(&server, "").await && admits(&server, &"x".repeat(256)).await
}

/// Whether a room that is opened by a client keeps it.
async fn admits(server: &Server, id: &str) -> bool {
    let mut client: Client = server.join(&format!("/{id}")).await;
    let is_open = server.until_room(id, "the room is open", |room| {
        room.is_some_and(|room| room["state"] == "open" && room["clients"] == 1)
    });
    tokio::select! {
        () = is_open => true,
        _ = client.closed() => false,
    }
}

async fn assert_agreement(modules: &[PathBuf], flags: &[&str]) -> Vec<bool> {
    let mut verdicts = Vec::new();
    // Endless loops are to end soon, but Go takes nine million to start.
    let flags = &[flags, &["--max-fuel-per-event", "10000000"]].concat();
    for module in modules {
        let verdict = checks(module, flags);
        let served = serves(module, flags).await;
        assert_eq!(verdict, served, "{module:?} with {flags:?}: check, serve");
        verdicts.push(verdict);
    }
    verdicts
}

#[tokio::test]
async fn on_the_bundled_modules() {
    let folder = bundled_path("x").parent().expect("a folder").to_owned();
    let files = fs::read_dir(folder).expect("cannot read it");
    let modules: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    assert!(modules.len() > 20);
    assert!(
        assert_agreement(&modules, &[])
            .await
            .iter()
            .all(|good| *good)
    );
    let rollback = ["--on-fault", "rollback"];
    assert!(
        assert_agreement(&modules, &rollback)
            .await
            .iter()
            .all(|good| *good)
    );
    // Too little for some of them.
    let memory = ["--max-memory-bytes", "65536"];
    let verdicts = assert_agreement(&modules, &memory).await;
    assert!(verdicts.contains(&true) && verdicts.contains(&false));
}

/// Modules that cannot be served, or only just.
fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let with = |name, body| assemble(&guest_0_2(ENV, &[(name, body)], ""));
    let and = |more| assemble(&guest_0_2(ENV, &[], more));
    let good = assemble(&echo());
    vec![
        ("empty", Vec::new()),
        ("text", b"hello".to_vec()),
        ("cut", good[..good.len() / 2].to_vec()),
        ("component", b"\0asm\x0d\0\x01\0".to_vec()),
        ("no-room", assemble("(module)")),
        (
            "no-export",
            assemble(&echo().replace("\"timer\"", "\"other\"")),
        ),
        (
            "unknown-import",
            assemble(&guest_0_2("(import \"env\" \"f\" (func))", &[], "")),
        ),
        ("threads", and("(memory 1 1 shared)")),
        (
            "memory",
            assemble(&echo().replacen("\"memory\") 1)", "\"memory\") 1025)", 1)),
        ),
        ("tables", and("(table 65537 funcref)")),
        ("segment", and(r#"(data (i32.const 65535) "ab")"#)),
        ("start-fails", and("(func $f unreachable) (start $f)")),
        ("start-loops", and("(func $f (loop (br 0))) (start $f)")),
        (
            "constructor-fails",
            and("(func (export \"_initialize\") unreachable)"),
        ),
        ("init-fails", with("initialize", "unreachable")),
        ("init-loops", with("initialize", "(loop (br 0))")),
        (
            "init-fails-if-empty",
            with(
                "initialize",
                "(if (i32.eqz (local.get 1)) (then (unreachable)))",
            ),
        ),
        (
            "init-fails-if-long",
            with(
                "initialize",
                "(if (i32.gt_u (local.get 1) (i32.const 255)) (then (unreachable)))",
            ),
        ),
        ("init-recurses", and("(func $f (call $f)) (start $f)")),
        ("connect-fails", with("connect", "unreachable")),
        ("message-fails", with("message", "unreachable")),
        ("timer-fails", with("timer", "unreachable")),
        ("null-allocator", with("jam_malloc", "(i32.const 0)")),
        ("wild-allocator", with("jam_malloc", "(i32.const -1)")),
        (
            "floods",
            with(
                "connect",
                "(loop (call $send_message (i32.const 0) (i32.const 0) (i32.const 1)) (br 0))",
            ),
        ),
        (
            "changes-tables",
            assemble(&guest_0_2(
                "",
                &[("timer", "(table.set $t (i32.const 0) (ref.null func))")],
                "(table $t 1 funcref)",
            )),
        ),
        ("simd", with("timer", "(drop (v128.const i64x2 1 2))")),
        ("0.4-fails", assemble(&guest_0_4("unreachable", ""))),
        ("0.4", assemble(&guest_0_4("", ""))),
        (
            "wrong-version",
            and(
                r#"(global (export "JAMSOCKET_API_VERSION") i32 (i32.const 64)) (data (i32.const 64) "\02\00\00\00")"#,
            ),
        ),
    ]
}

#[tokio::test]
async fn on_broken_modules() {
    let folder = TempDir::new();
    let modules: Vec<_> = broken()
        .into_iter()
        .map(|(name, wasm)| folder.write(&format!("{name}.wasm"), wasm))
        .collect();
    let verdicts = assert_agreement(&modules, &[]).await;
    let good = verdicts.iter().filter(|good| **good).count();
    // Those that fail later, the null allocator, tables, SIMD, and 0.4.
    assert_eq!(good, 6, "{verdicts:?}");
    for policy in ["restart", "rollback"] {
        let flags = [
            "--on-fault",
            policy,
            "--restart-wait",
            "1",
            "--restarts",
            "3",
        ];
        assert_agreement(&modules, &flags).await;
    }
}

#[test]
fn on_limits_with_which_nobody_could_be_served() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it has one").port().to_string();
    let module = bundled_path("echo-c");
    let module = module.to_str().expect("UTF-8");
    for flag in ["--max-clients", "--max-fuel-per-event"] {
        for command in [&["check"][..], &["serve", "--port", &port]] {
            let output = tool(&[command, &[flag, "0", module]].concat());
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command:?}: {error}");
            assert!(error.contains(flag), "{command:?}: {error}");
        }
    }
}
