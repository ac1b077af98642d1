//! Statuses and messages.

use crate::support::{Host, Module, ROOM, Status, buffer};
use stateroom_wasmi::*;
use std::{collections::HashSet, ffi::CStr, ptr::null_mut};

#[test]
fn each_status_has_a_text_of_its_own() {
    let text = |status| {
        let text = unsafe { CStr::from_ptr(stateroom_status_text(status)) };
        text.to_str().unwrap()
    };
    let known = (0..=8)
        .chain(16..=20)
        .chain(32..=35)
        .chain(48..=55)
        .chain(64..=67);
    let texts: Vec<_> = known.map(text).collect();
    assert!(!texts.contains(&"unknown status"));
    assert_eq!(texts.iter().collect::<HashSet<_>>().len(), texts.len());
    for unknown in [-1, 9, 15, 21, 56, 68, i32::MAX] {
        assert_eq!(text(unknown), "unknown status");
    }
}

#[test]
fn a_message_may_be_unwanted_or_short() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    let connect = |error| unsafe { stateroom_room_connect(host.handle, room, 1, error) };
    assert_eq!(connect(null_mut()), Status::AlreadyConnected);
    let mut text = [0x7f; 7];
    let mut error = buffer(&mut text);
    assert_eq!(connect(&raw mut error), Status::AlreadyConnected);
    assert_eq!(error.length, "client 1 is connected already".len());
    assert_eq!(&text, b"client\0");
    let mut error = buffer(&mut []);
    assert_eq!(connect(&raw mut error), Status::AlreadyConnected);
    assert_eq!(error.length, "client 1 is connected already".len());
}

#[test]
fn a_buffer_that_is_none_does_not_hide_the_status() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    let mut error = stateroom_buffer {
        data: null_mut(),
        capacity: 10,
        length: 0,
    };
    let status = unsafe { stateroom_room_connect(host.handle, room, 1, &raw mut error) };
    assert_eq!(status, Status::AlreadyConnected);
}
