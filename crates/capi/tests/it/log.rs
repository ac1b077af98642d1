//! Log lines go to the host that caused them.

use crate::support::{Call, Host, Module, ROOM, Status, log};
use stateroom_wasmi::*;
use std::{rc::Rc, thread};

fn lines(host: &Host) -> Vec<(i32, String, String)> {
    host.calls()
        .into_iter()
        .filter_map(|call| match call {
            Call::Log(level, target, text) => Some((level, target, text)),
            _ => None,
        })
        .collect()
}

fn logging() -> Host {
    Host::with(|options| options.log = Some(log))
}

#[test]
fn what_a_guest_prints_is_logged() {
    let (host, module) = (logging(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    host.text(room, 1, "print \u{1b}[31m\nme").unwrap();
    host.poll(0);
    let lines = lines(&host);
    let info = stateroom_log_level::Info as i32;
    for (line, part) in lines.iter().zip(["print ", "me"]) {
        assert_eq!((line.0, line.1.as_str()), (info, "guest"));
        assert!(
            line.2.contains("\"room\"") && line.2.contains(part),
            "{}",
            line.2
        );
        assert!(!line.2.contains(['\n', '\u{1b}']), "{}", line.2);
    }
    assert_eq!(lines.len(), 2);
}

#[test]
fn lines_are_filtered_by_each_host_s_level() {
    let module = Module::new(ROOM);
    for (level, expected) in [(0, 1), (1, 0), (2, 0), (3, 1), (4, 2), (5, 2)] {
        let host = Host::with(|options| {
            options.log = Some(log);
            options.max_log_level = level;
        });
        let room = host.open("room", &module).unwrap();
        host.connect(room, 1).unwrap();
        host.text(room, 1, "print").unwrap();
        host.poll(0);
        let lines = lines(&host);
        // That a room is open is a detail.
        assert_eq!(lines.len(), expected, "{level}: {lines:?}");
    }
}

#[test]
fn an_unknown_level_is_refused() {
    for level in [-1, 6] {
        let host = Host::try_with(|options| options.max_log_level = level);
        assert_eq!(host.map(drop).unwrap_err().status, Status::InvalidArgument);
    }
}

#[test]
fn hosts_do_not_see_each_other_s_lines() {
    let threads: Vec<_> = (0..4)
        .map(|n: usize| {
            thread::spawn(move || {
                let (host, module) = (logging(), Module::new(ROOM));
                let room = host.open_with_client(&module);
                for turn in 0..100 {
                    let text = format!("p{n} {turn}");
                    host.text(room, 1, &text).unwrap();
                    host.poll(turn * 1_000_000_000);
                    let lines = lines(&host);
                    assert!(matches!(&lines[..], [(_, _, line)] if line.ends_with(&text)));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_host_within_a_callback_has_its_own_lines() {
    let module = Module::new(ROOM);
    let (outer, inner, silent) = (logging(), Rc::new(logging()), Rc::new(Host::new()));
    let room = outer.open_with_client(&module);
    let rooms = [&inner, &silent].map(|host| (host.clone(), host.open_with_client(&module)));
    *outer.behaviour.on_call.borrow_mut() = Some(Box::new(move || {
        for (host, room) in &rooms {
            host.text(*room, 1, "print inner").unwrap();
            host.poll(0);
        }
    }));
    outer.text(room, 1, "echo").unwrap();
    outer.text(room, 1, "print outer").unwrap();
    outer.poll(0);
    *outer.behaviour.on_call.borrow_mut() = None;
    let outer = lines(&outer);
    assert!(
        matches!(&outer[..], [(_, _, line)] if line.ends_with("outer")),
        "{outer:?}"
    );
    // It is called for the echo and for the line.
    let inner = lines(&inner);
    assert_eq!(inner.len(), 2);
    assert!(inner.iter().all(|line| line.2.ends_with("inner")));
}
