//! Chat: a room to talk in, with nicknames.
//!
//! | what happens | reply | to |
//! |---|---|---|
//! | a client connects | `Welcome, guest1. Commands: /nick NAME, /who.` | the newcomer |
//! | | `guest1 joined.` | everybody else |
//! | a client disconnects | `guest1 left.` | everybody else |
//! | a text | `guest1: the text` | everybody, the sender too |
//! | `/nick ada` | `guest1 is now ada.` | everybody |
//! | `/nick` with an invalid name | the reason | the sender |
//! | `/who` | `Here: ada, guest2.`, by id | the sender |
//! | any other text that begins with a slash | `Commands: /nick NAME, /who.` | the sender |
//! | a text of more than 2000 bytes | `That is too long: 2000 bytes at most.` | the sender |
//! | a text of nothing but spaces, or a binary message | nothing | |
//!
//! A name has 1 to 24 characters, none of them a control character, and is not in use. Names
//! that begin with `guest` are reserved. Spaces around names and texts are trimmed.

use std::collections::BTreeMap;

use stateroom_wasm::prelude::*;

const TEXT_BYTES: usize = 2000;
const NAME_CHARS: usize = 24;

#[stateroom_wasm]
struct Chat {
    /// Everybody who is here, by id.
    names: BTreeMap<ClientId, String>,
}

impl SimpleStateroomService for Chat {
    fn new(_room_id: &str, _context: &impl StateroomContext) -> Self {
        Chat {
            names: BTreeMap::new(),
        }
    }

    fn connect(&mut self, client: ClientId, context: &impl StateroomContext) {
        let name = format!("guest{}", u32::from(client));
        context.send_message(
            client,
            &format!("Welcome, {name}. Commands: /nick NAME, /who."),
        );
        context.send_message(
            MessageRecipient::EveryoneExcept(client),
            &format!("{name} joined."),
        );
        self.names.insert(client, name);
    }

    fn disconnect(&mut self, client: ClientId, context: &impl StateroomContext) {
        if let Some(name) = self.names.remove(&client) {
            context.send_message(
                MessageRecipient::EveryoneExcept(client),
                &format!("{name} left."),
            );
        }
    }

    fn message(&mut self, client: ClientId, message: &str, context: &impl StateroomContext) {
        if let Some((recipient, reply)) = self.reply_to(client, message) {
            context.send_message(recipient, &reply);
        }
    }
}

/// A reply and its recipient.
type Reply = (MessageRecipient, String);

impl Chat {
    /// The reply to a text, if any.
    fn reply_to(&mut self, client: ClientId, text: &str) -> Option<Reply> {
        // A client that never connected has no name and gets no reply.
        let name = self.names.get(&client)?;
        let to_sender = |reply: &str| Some((client.into(), reply.to_string()));
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        if text.len() > TEXT_BYTES {
            return to_sender("That is too long: 2000 bytes at most.");
        }
        if !text.starts_with('/') {
            return Some((MessageRecipient::Broadcast, format!("{name}: {text}")));
        }
        let (command, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match command {
            "/nick" => match self.rename(client, rest.trim()) {
                Ok(announcement) => Some((MessageRecipient::Broadcast, announcement)),
                Err(reason) => to_sender(reason),
            },
            "/who" => {
                let names: Vec<&str> = self.names.values().map(String::as_str).collect();
                to_sender(&format!("Here: {}.", names.join(", ")))
            }
            _ => to_sender("Commands: /nick NAME, /who."),
        }
    }

    /// Renames `client` and returns the announcement, or why the name is refused.
    fn rename(&mut self, client: ClientId, name: &str) -> Result<String, &'static str> {
        if name.is_empty() {
            return Err("Say /nick and then your new name.");
        }
        if name.chars().count() > NAME_CHARS {
            return Err("That name is too long: 24 characters at most.");
        }
        if name.chars().any(char::is_control) {
            return Err("That name has characters that cannot be seen.");
        }
        if name.starts_with("guest") {
            return Err("Names that begin with guest are given by the room.");
        }
        if self.names.values().any(|taken| taken == name) {
            return Err("That name is taken.");
        }
        match self.names.insert(client, name.to_string()) {
            Some(old) => Ok(format!("{old} is now {name}.")),
            None => Ok(format!("{name} is here.")),
        }
    }
}
