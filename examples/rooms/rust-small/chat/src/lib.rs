//! Chat: a room to talk in, with nicknames, in less than four KiB of memory.
//!
//! | what happens | reply | to |
//! |---|---|---|
//! | a client connects | `Welcome, guest1. Commands: /nick NAME, /who.` | the newcomer |
//! | | `guest1 joined.` | everybody else |
//! | a client disconnects | `guest1 left.` | everybody else |
//! | a text | `guest1: the text` | everybody, the sender too |
//! | `/nick ada` | `guest1 is now ada.` | everybody |
//! | `/nick` with an invalid name | the reason | the sender |
//! | `/who` | `Here: ada, guest2.`, by when they came | the sender |
//! | any other text that begins with a slash | `Commands: /nick NAME, /who.` | the sender |
//! | a text of more than 400 bytes | `That is too long: 400 bytes at most.` | the sender |
//! | a text of nothing but spaces, or a binary message | nothing | |
//!
//! A name has 1 to 24 bytes, none of them a control character, and is not in use. Names that begin
//! with `guest` are reserved. A ninth client receives messages, but has no name and cannot send.

#![no_std]

use stateroom_small::{room, send_text, Room, Text, EVERYBODY};

const TEXT_BYTES: usize = 400;
const NAME_BYTES: usize = 24;
const MEMBERS: usize = 8;

type Name = Text<NAME_BYTES>;
/// Long enough for every reply.
type Reply = Text<{ NAME_BYTES + TEXT_BYTES + 8 }>;

struct Chat {
    /// The connected clients, in order of arrival.
    members: [Option<(i32, Name)>; MEMBERS],
}

room!(Chat);

impl Room for Chat {
    const NEW: Self = Chat {
        members: [None; MEMBERS],
    };

    fn connect(&mut self, client: i32) {
        let mut name = Name::new();
        name.push("guest").push_number(client as u32);
        let Some(place) = self.members.iter_mut().find(|place| place.is_none()) else {
            send_text(client, "The room is full: you may listen.");
            return;
        };
        *place = Some((client, name));
        send_pieces(
            client,
            &["Welcome, ", name.as_str(), ". Commands: /nick NAME, /who."],
        );
        send_pieces(-client, &[name.as_str(), " joined."]);
    }

    fn disconnect(&mut self, client: i32) {
        let Some(index) = self.index(client) else {
            return;
        };
        if let Some((_, name)) = self.members[index] {
            send_pieces(-client, &[name.as_str(), " left."]);
        }
        // Later members move up, so that the order is kept.
        self.members[index..].rotate_left(1);
        self.members[MEMBERS - 1] = None;
    }

    fn text(&mut self, client: i32, text: &str) {
        let Some(name) = self.name(client) else {
            return;
        };
        let text = text.trim();
        if text.len() > TEXT_BYTES {
            send_text(client, "That is too long: 400 bytes at most.");
        } else if let Some(name) = text.strip_prefix("/nick ") {
            self.rename(client, name.trim());
        } else if text == "/nick" {
            self.rename(client, "");
        } else if text == "/who" {
            self.send_names(client);
        } else if text.starts_with('/') {
            send_text(client, "Commands: /nick NAME, /who.");
        } else if !text.is_empty() {
            send_pieces(EVERYBODY, &[name.as_str(), ": ", text]);
        }
    }
}

impl Chat {
    fn index(&self, client: i32) -> Option<usize> {
        self.members
            .iter()
            .position(|member| matches!(member, Some((id, _)) if *id == client))
    }

    fn name(&self, client: i32) -> Option<Name> {
        self.index(client)
            .and_then(|index| self.members[index])
            .map(|(_, name)| name)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().flatten().map(|(_, name)| name.as_str())
    }

    fn send_names(&self, client: i32) {
        let mut reply = Reply::new();
        for (i, name) in self.names().enumerate() {
            reply.push(if i > 0 { ", " } else { "Here: " }).push(name);
        }
        send_text(client, reply.push(".").as_str());
    }

    /// Renames a client and announces it, or sends the client the reason why not.
    fn rename(&mut self, client: i32, name: &str) {
        let problem = if name.is_empty() {
            Some("Say /nick and then your new name.")
        } else if name.len() > NAME_BYTES {
            Some("That name is too long: 24 bytes at most.")
        } else if name.chars().any(char::is_control) {
            Some("That name has characters that cannot be seen.")
        } else if name.starts_with("guest") {
            Some("Names that begin with guest are given by the room.")
        } else if self.names().any(|taken| taken == name) {
            Some("That name is taken.")
        } else {
            None
        };
        if let Some(problem) = problem {
            send_text(client, problem);
        } else if let Some(Some((_, old))) =
            self.index(client).map(|index| &mut self.members[index])
        {
            send_pieces(EVERYBODY, &[old.as_str(), " is now ", name, "."]);
            *old = Name::new();
            old.push(name);
        }
    }
}

/// Sends a text made of pieces.
fn send_pieces(to: i32, pieces: &[&str]) {
    let mut reply = Reply::new();
    for piece in pieces {
        reply.push(piece);
    }
    send_text(to, reply.as_str());
}
