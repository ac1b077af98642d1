//! Several hosts, calls from callbacks and from other threads, and panics.

use crate::support::{Call, Host, Module, ROOM, Status, call, status};
use stateroom_wasmi::*;
use std::{cell::RefCell, ptr::null_mut, rc::Rc, sync::mpsc, thread};

/// A host's handle, for another thread.
#[derive(Clone, Copy)]
struct Shared(*mut stateroom_host);

unsafe impl Send for Shared {}

#[test]
fn hosts_are_independent() {
    let module = Module::new(ROOM);
    let (one, other) = (Host::new(), Host::new());
    let room = one.open_with_client(&module);
    let other_room = other.open_with_client(&module);
    assert_ne!(room, other_room, "keys say of which host they are");
    one.text(room, 1, "one").unwrap();
    other.text(other_room, 1, "other").unwrap();
    one.poll(0);
    assert_eq!((one.texts(), other.texts()), (vec!["one".into()], vec![]));
    other.poll(0);
    assert_eq!(other.texts(), ["other"]);
    for result in [
        one.text(other_room, 1, ""),
        one.close(other_room),
        one.discard(other_room),
        one.connect(other_room, 2),
    ] {
        assert_eq!(status(result), Status::WrongHandle);
    }
}

#[test]
fn hosts_run_on_threads_of_their_own() {
    let threads: Vec<_> = (0..4)
        .map(|n: usize| {
            thread::spawn(move || {
                let (host, module) = (Host::new(), Module::new(ROOM));
                let room = host.open_with_client(&module);
                for turn in 0..100 {
                    let text = format!("echo {n} {turn}");
                    host.text(room, 1, &text).unwrap();
                    host.poll(0);
                    assert_eq!(host.texts(), [text]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_host_may_change_its_thread() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    let shared = Shared(host.handle);
    thread::spawn(move || {
        let Shared(handle) = { shared };
        call(|error| unsafe { stateroom_room_connect(handle, room, 2, error) }).unwrap();
    })
    .join()
    .unwrap();
    host.poll(0);
    assert_eq!(host.calls(), [Call::Connected(room, 2)]);
}

#[test]
fn a_host_that_runs_refuses_its_callbacks() {
    let (host, module) = (Host::new(), Rc::new(Module::new(ROOM)));
    let other = Rc::new(Host::new());
    let other_room = other.open_with_client(&module);
    let room = host.open("room", &module).unwrap();
    host.connect(room, 1).unwrap();
    host.text(room, 1, "echo").unwrap();
    let results = Rc::new(RefCell::new(Vec::new()));
    let handle = host.handle;
    *host.behaviour.on_call.borrow_mut() = Some(Box::new({
        let (results, other, module) = (results.clone(), other.clone(), module.clone());
        move || {
            let mut freed = handle;
            let mut count = 0;
            let key = &mut 0;
            results.borrow_mut().extend([
                call(|e| unsafe { stateroom_room_connect(handle, room, 2, e) }),
                call(|e| unsafe { stateroom_room_close(handle, room, e) }),
                call(|e| unsafe {
                    stateroom_host_poll(handle, 0, 1, STATEROOM_NEVER, null_mut(), e)
                }),
                call(|e| unsafe {
                    stateroom_host_get_rooms(handle, null_mut(), 0, &raw mut count, e)
                }),
                call(|e| unsafe {
                    let no_options = std::ptr::null();
                    let id = c"x".as_ptr();
                    stateroom_room_open(handle, 0, id, 1, module.0, no_options, key, e)
                }),
                call(|e| unsafe { stateroom_host_free(&raw mut freed, e) }),
            ]);
            assert_eq!(freed, handle, "it is not freed");
            // Another host may be used.
            other.text(other_room, 1, "inner").unwrap();
            other.poll(0);
        }
    }));
    host.poll(0);
    assert_eq!(host.texts(), ["echo"]);
    assert_eq!(other.texts(), ["inner", "inner"]);
    assert_eq!(results.borrow().len(), 12);
    for result in results.take() {
        assert_eq!(status(result), Status::InUse);
    }
    *host.behaviour.on_call.borrow_mut() = None;
    host.connect(room, 2).unwrap();
}

#[test]
fn a_host_that_runs_refuses_other_threads() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    let shared = Shared(host.handle);
    let (ask, asked) = mpsc::channel();
    let (answer, answers) = mpsc::channel();
    let thread = thread::spawn(move || {
        let Shared(handle) = { shared };
        for () in asked {
            let result = call(|error| unsafe { stateroom_room_connect(handle, room, 2, error) });
            answer.send(result).unwrap();
        }
    });
    let asked_within = Rc::new(RefCell::new(Vec::new()));
    *host.behaviour.on_call.borrow_mut() = Some(Box::new({
        let asked_within = asked_within.clone();
        move || {
            ask.send(()).unwrap();
            asked_within.borrow_mut().push(answers.recv().unwrap());
        }
    }));
    host.text(room, 1, "echo").unwrap();
    host.poll(0);
    *host.behaviour.on_call.borrow_mut() = None;
    thread.join().unwrap();
    assert_eq!(asked_within.borrow().len(), 1);
    assert_eq!(status(asked_within.take().remove(0)), Status::InUse);
}

#[test]
fn a_panic_loses_its_host_and_nothing_else() {
    let module = Module::new(ROOM);
    let (host, other) = (Host::new(), Host::new());
    let room = host.open_with_client(&module);
    host.text(room, 1, "echo").unwrap();
    *host.behaviour.on_call.borrow_mut() = Some(Box::new(|| panic!("out of cheese")));
    let error = host
        .try_poll(0, STATEROOM_UNLIMITED, STATEROOM_NEVER)
        .unwrap_err();
    assert_eq!(error.status, Status::Panicked);
    assert!(error.message.contains("out of cheese"), "{}", error.message);
    assert_eq!(status(host.text(room, 1, "later")), Status::Panicked);
    let other_room = other.open_with_client(&module);
    other.text(other_room, 1, "echo").unwrap();
    other.poll(0);
    assert_eq!(other.texts(), ["echo"]);
    // Dropping the host frees it.
}

#[test]
fn rooms_end_with_their_host() {
    let module = Module::new(ROOM);
    let host = Host::new();
    host.open_with_client(&module);
    let Host { handle, behaviour } = &host;
    let mut freed = *handle;
    call(|error| unsafe { stateroom_host_free(&raw mut freed, error) }).unwrap();
    assert!(freed.is_null());
    call(|error| unsafe { stateroom_host_free(&raw mut freed, error) }).unwrap();
    assert!(behaviour.on_call.borrow().is_none());
    assert_eq!(host.calls(), []);
    std::mem::forget(host);
}
